"""Server-sent events on the wire.

A comment is one line and one LF and is never followed by a blank line: once an `id:` was sent, a blank line without
data makes the OpenAI SDK raise. Every event is ready-made bytes.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping

import orjson
from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.types import Receive, Scope, Send

from producer.edge.departure import Departure
from producer.edge.errors import error_object
from producer.edge.interruption import Interruption
from producer.edge.wire import Wire, wire_of
from schemas.errors import ServingError

PING = b": ping\n"
# A client that has taken an answer says so within a round trip; its system may put that off for some 40 ms.
_ASK_AGAIN_S = 0.05
_TAKEN_WITHIN_S = 5.0

# Draining is ours: streams finish or are told why not, they are not cut. See `drain`.
AppStatus.enable_automatic_graceful_drain = False


def queued_comment(position: int, eta_s: int) -> bytes:
    return b": queued position=%d eta_s=%d\n" % (position, eta_s)


def prefill_comment(percent: int) -> bytes:
    return b": prefill %d%%\n" % percent


def error_event(error: ServingError) -> bytes:
    """A failure after the status line: no `[DONE]` follows it."""
    return b"data: %b\n\n" % orjson.dumps(error_object(error))


class EventStream(EventSourceResponse):
    """Sends what an iterator yields, until the client leaves or stops reading.

    Afterwards `left` is true when the client is gone, and `cut` when it left the connection's buffers full for longer
    than `stalled_after_s`; it then finds `farewell` behind what they hold, if it reads on soon.

    The library waits for events, for a departure and for a shutdown in a task each; here all are one task's, in which a
    first token goes from the journal's reader to the connection in one turn of the loop.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        departure: Departure,
        *,
        headers: Mapping[str, str] | None = None,
        stalled_after_s: float,
        farewell: Callable[[], bytes],
    ) -> None:
        super().__init__(events, headers=headers, ping=0)
        self._events = events
        self._departure = departure
        self._stalled_after_s = stalled_after_s
        self._farewell = farewell
        self._sending_since: float | None = None
        self._wire: Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.left = False
        self.cut = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._wire = wire_of(scope)
        try:
            if scope["method"] == "HEAD":
                await super().__call__(scope, receive, send)
                return
            with Interruption(self._departure.watcher) as interruption:
                await self._send_watched(send, interruption)
        finally:
            self._departure.stop()
        self.left = interruption.happened and self.active and not self.cut
        if self.cut and self._wire is not None:
            self._wire.end_with(self._farewell())

    async def was_taken(self) -> bool:
        """Whether the client's system has acknowledged all that was sent. Waits for that for a moment."""
        wire = self._wire
        if self.left or self.cut or wire is None:
            return not (self.left or self.cut)
        give_up_at = time.monotonic() + _TAKEN_WITHIN_S
        while not wire.is_taken:
            if wire.is_dropped or time.monotonic() > give_up_at:
                return False
            await wire.wait_news(_ASK_AGAIN_S)
        return True

    async def _send_watched(self, send: Send, interruption: Interruption) -> None:
        self._look_later(interruption)
        try:
            await self._stream_response(send)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _look_later(self, interruption: Interruption) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._stalled_after_s / 4, self._look, interruption)

    def _look(self, interruption: Interruption) -> None:
        if self._is_stalled() and not interruption.happened:
            self.cut = True
            interruption.stop()
        else:
            self._look_later(interruption)

    async def _stream_response(self, send: Send) -> None:
        # Sends are awaited directly: a cancel scope for each would cost as much as everything else.
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._events:
            self._sending_since = time.monotonic()
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            self._sending_since = None
        self.active = False
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _is_stalled(self) -> bool:
        since = self._sending_since
        return since is not None and time.monotonic() - since > self._stalled_after_s
