"""Watches all calls of this edge: deadlines, silent workers, stray deliveries, calls that ended with nobody reading."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import structlog

from broker.errors import BrokerError
from producer.edge.background import Background
from producer.edge.calls import Call, LiveCalls, Part
from producer.edge.lifecycle import Lifecycle
from producer.edge.retry_after import Line
from producer.edge.strays import Strays
from schemas.errors import ErrorCode, ServingError
from schemas.events import Started

_log = structlog.stdlib.get_logger("inferflux.edge.guardian")

_ROUND_S = 0.1
_SILENT_S = 0.3
# What a claim may take without anybody wondering.
_UNCLAIMED_S = 0.1
_ASK_AGAIN_S = 1.0
# The broker had this long to record the end of a call whose deadline passed.
_GIVE_UP_S = 10.0


class WorkerProbe:
    """Asks workers whether they live; one question at a time to each."""

    def __init__(self, is_alive: Callable[[str], Awaitable[bool]]) -> None:
        self._is_alive = is_alive
        self._asking: dict[str, asyncio.Future[bool]] = {}

    async def is_alive(self, worker_id: str) -> bool:
        asking = self._asking.get(worker_id)
        if asking is None:
            asking = asyncio.ensure_future(self._is_alive(worker_id))
            self._asking[worker_id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(worker_id, None))
        return await asyncio.shield(asking)


class Guardian:
    """One task for all calls; a round costs about a microsecond for each. `is_live`: journals are being followed."""

    def __init__(
        self,
        calls: LiveCalls,
        lifecycle: Lifecycle,
        probe: WorkerProbe,
        is_live: Callable[[], bool],
        hand_back: Callable[[str], Awaitable[None]],
        strays: Strays,
        background: Background,
    ) -> None:
        self._calls = calls
        self._lifecycle = lifecycle
        self._probe = probe
        self._is_live = is_live
        self._hand_back = hand_back
        self._strays = strays
        self._background = background

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_ROUND_S)
            now = time.monotonic()
            unclaimed: dict[Line, list[Part]] = {}
            for call in self._calls:
                for part in self._look_at(call, now):
                    unclaimed.setdefault(Line(call.model, call.priority), []).append(part)
            self._strays.look_for(unclaimed)

    def _look_at(self, call: Call, now: float) -> Iterable[Part]:
        """Returns the parts that no worker says it has."""
        self._lifecycle.note_starts(call)
        if call.is_over:
            self._lifecycle.settle(call)
            return ()
        if now >= call.deadline_at:
            self._lifecycle.expire(call)
            if now >= call.deadline_at + _GIVE_UP_S:
                self._lifecycle.fail_locally(call, _deadline_error())
            return ()
        if not self._is_live():
            return ()  # the silence may be ours
        unclaimed = []
        for part in call.open_parts():
            if not part.is_unclaimed:
                self._look_at_worker(part, now)
            elif now - part.unclaimed_since >= _UNCLAIMED_S:
                unclaimed.append(part)
        return unclaimed

    def _look_at_worker(self, part: Part, now: float) -> None:
        started = part.view.fold.started
        assert started is not None, "unclaimed"
        if now - part.view.last_activity < _SILENT_S or now - part.asked_at < _ASK_AGAIN_S:
            return
        part.asked_at = now
        self._background.spawn(self._ask(part, started), f"ask {started.worker}")

    async def _ask(self, part: Part, started: Started) -> None:
        try:
            if await self._probe.is_alive(started.worker) or part.view.fold.started is not started:
                return
            part.handed_back_run, part.handed_back_at = started.run, time.monotonic()
            _log.warning("worker is gone, handing back", request_id=part.request_id, worker=started.worker)
            await self._hand_back(started.ack_subject)
        except (BrokerError, ValueError) as error:
            _log.warning("silent worker not handled", request_id=part.request_id, error=str(error))


def _deadline_error() -> ServingError:
    return ServingError(ErrorCode.DEADLINE_EXCEEDED, "The request was not finished before its deadline.")
