"""Dropping journals: at once when the end was delivered, else after the time in which a client may resume."""

import asyncio
import heapq
import time

import structlog

from broker.errors import BrokerError
from broker.journal import JournalHub

_log = structlog.stdlib.get_logger("inferflux.edge.retention")

_LOOK_S = 5.0


class Retention:
    """Knows which of this edge's journals to drop when. What a dead edge leaves ages out with the stream."""

    def __init__(self, hub: JournalHub, resume_window_s: float) -> None:
        self._hub = hub
        self._resume_window_s = resume_window_s
        self._due: list[tuple[float, str]] = []

    def keep_for_resume(self, request_id: str) -> None:
        heapq.heappush(self._due, (time.monotonic() + self._resume_window_s, request_id))

    async def drop(self, request_id: str) -> None:
        """Purge now; when the broker does not answer, later."""
        try:
            await self._hub.purge(request_id)
        except BrokerError as error:
            _log.warning("journal not purged yet", request_id=request_id, error=str(error))
            heapq.heappush(self._due, (time.monotonic() + _LOOK_S, request_id))

    async def run(self) -> None:
        """Drop what is due, until cancelled."""
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                await self.drop(heapq.heappop(self._due)[1])
            await asyncio.sleep(_LOOK_S)
