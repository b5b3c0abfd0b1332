"""Comments that keep a stream alive while there is no text, and say what it is waiting for."""

import math
import time
from collections.abc import Awaitable, Callable

from producer.edge.calls import Call
from producer.edge.position import Position
from producer.edge.rates import ServiceRates
from producer.edge.sse import PING, prefill_comment, queued_comment

# How often to look whether a waiting request has moved, or the edge is closing.
_LOOK_S = 1.0
_MIN_GAP_S = 0.25

PositionOf = Callable[[Call], Awaitable[Position]]


class Narrator:
    """One reader's comments: at least one every `interval_s` of silence, and one when the news changes."""

    def __init__(self, call: Call, position_of: PositionOf, rates: ServiceRates, interval_s: float) -> None:
        self._call = call
        self._position_of = position_of
        self._rates = rates
        self._interval_s = interval_s
        self._last = b""
        self._sent_at = time.monotonic()

    def note_sent(self) -> None:
        self._sent_at = time.monotonic()

    def wait_s(self) -> float:
        """How long to wait for something to send before asking for a comment."""
        left = self._interval_s - (time.monotonic() - self._sent_at)
        return max(min(left, _LOOK_S), 0.01)

    async def comment(self, *, at_once: bool = False) -> bytes:
        """The comment that is due now; empty when none is."""
        quiet_s = time.monotonic() - self._sent_at
        is_due = at_once or quiet_s >= self._interval_s
        if not is_due and (quiet_s < _MIN_GAP_S or self._call.first_token_at is not None):
            return b""
        comment = await self._news()
        if not is_due and comment in (self._last, PING):
            return b""
        self._last = comment
        self.note_sent()
        return comment

    async def _news(self) -> bytes:
        if self._call.first_token_at is not None:
            return PING
        for part in self._call.open_parts():
            progress = part.view.progress
            if progress is not None and progress.num_prompt > 0:
                return prefill_comment(min(100, 100 * progress.num_computed // progress.num_prompt))
        if self._call.has_started:
            return PING
        position = await self._position_of(self._call)
        eta_s = self._rates.time_for(self._call.model, self._call.priority, position.own, position.above)
        return queued_comment(position.overall, math.ceil(eta_s))
