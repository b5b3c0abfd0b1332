"""Requests that were delivered to a worker which is gone and had not claimed them: no journal tells who had them.

What a class of a model had delivered when it was last looked at, and what nobody has claimed since, is either in some
worker's hands, or waits to be delivered again, or is a stray. It does not wait if a worker asks for requests, or has
got newer ones meanwhile; whether it is in somebody's hands the workers say themselves.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog

from broker.errors import BrokerError
from broker.subjects import parse_delivery
from broker.work_queue import Look
from producer.edge.background import Background
from producer.edge.calls import Part
from producer.edge.queue_view import LookAt
from producer.edge.retry_after import Line
from schemas.errors import ServingError
from schemas.requests import PriorityClass

_log = structlog.stdlib.get_logger("inferflux.edge.strays")

# Between two looks at a class. An ordinary claim takes a few milliseconds.
_EVERY_S = 0.2
# After the broker was away the workers, too, need a moment to come back: until then they cannot say what they have.
_COME_BACK_S = 1.0


class Unheld(Protocol):
    async def __call__(self, model: str, seqs: Collection[int]) -> set[int]: ...


class HandBack(Protocol):
    async def __call__(self, model: str, priority: PriorityClass, seq: int, look: Look) -> None: ...


class Strays:
    """Looks only while something of this edge is unclaimed, and asks only about what may be a stray.

    `live_since`: when this edge began to hear of claims, anew after each reconnection.
    """

    def __init__(
        self,
        look: LookAt,
        unheld: Unheld,
        hand_back: HandBack,
        live_since: Callable[[], float],
        background: Background,
    ) -> None:
        self._look = look
        self._unheld = unheld
        self._hand_back = hand_back
        self._live_since = live_since
        self._background = background
        self._looks: dict[Line, Look] = {}
        self._looking: set[Line] = set()

    def look_for(self, unclaimed: Mapping[Line, Collection[Part]]) -> None:
        """Look again at the classes whose turn it is, in the background. `unclaimed` are all open parts without a
        claim in charge.
        """
        now = time.monotonic()
        for line in self._looks.keys() - unclaimed.keys():
            del self._looks[line]
        for line, parts in unclaimed.items():
            last = self._looks.get(line)
            if line not in self._looking and (last is None or now - last.asked_at >= _EVERY_S):
                self._looking.add(line)
                self._background.spawn(self._look_at(line, parts), f"strays of {line.model}")

    async def _look_at(self, line: Line, parts: Collection[Part]) -> None:
        try:
            before = self._looks.get(line)
            look = await self._look(line.model, line.priority, asked_after=time.monotonic())
            self._looks[line] = look
            if before is not None and (look.num_asking > 0 or look.delivered_seq > before.delivered_seq):
                await self._hand_back_strays(line, self._suspects(parts, before), look)
        except (BrokerError, ServingError) as error:
            _log.warning("strays not looked for", model=line.model, error=str(error))
        finally:
            self._looking.discard(line)

    def _suspects(self, parts: Collection[Part], before: Look) -> dict[int, Part]:
        """By stream sequence, those that were delivered by then and had no claim in charge."""
        if before.asked_at < self._live_since() + _COME_BACK_S:
            return {}
        found = {seq: part for part in parts if (seq := _seq(part)) is not None and seq <= before.delivered_seq}
        return {seq: part for seq, part in found.items() if part.unclaimed_since < before.asked_at}

    async def _hand_back_strays(self, line: Line, suspects: Mapping[int, Part], look: Look) -> None:
        if not suspects:
            return
        unheld = await self._unheld(line.model, suspects)
        strays = {seq: part for seq, part in suspects.items() if seq in unheld and part.is_unclaimed}
        for part in strays.values():
            part.handed_back_at = time.monotonic()
            _log.warning("delivered to a worker that is gone, handing back", request_id=part.request_id)
        await asyncio.gather(*(self._hand_back(line.model, line.priority, seq, look) for seq in strays))


def _seq(part: Part) -> int | None:
    """Its place in the request stream. Of another edge's request an earlier claim may tell it."""
    if part.seq is not None or part.started is None:
        return part.seq
    try:
        return parse_delivery(part.started.ack_subject).stream_seq
    except ValueError:
        return None
