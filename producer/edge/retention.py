"""Dropping journals: at once when the end was delivered, else after the time in which a client may resume.

What a dead edge leaves is dropped by whoever delivers its end, or ages out with the stream; it cannot be read for
longer than anything else (`gone`).
"""

import asyncio
import heapq
import time
from typing import NamedTuple

import structlog

from broker.errors import BrokerError
from broker.journal import LAPSED, PURGED, JournalHub

_log = structlog.stdlib.get_logger("inferflux.edge.retention")

_LOOK_S = 5.0


class _Due(NamedTuple):
    """A journal to drop at a monotonic time."""

    at: float
    edge: str
    request_id: str
    reason: str


class Retention:
    """Knows which of this edge's journals to drop when."""

    def __init__(self, hub: JournalHub, resume_window_s: float) -> None:
        self._hub = hub
        self._resume_window_s = resume_window_s
        self._due: list[_Due] = []

    def keep_for_resume(self, edge: str, request_id: str) -> None:
        heapq.heappush(self._due, _Due(time.monotonic() + self._resume_window_s, edge, request_id, LAPSED))

    async def drop(self, edge: str, request_id: str, reason: str = PURGED) -> None:
        """Purge now; when the broker does not answer, later. `reason` is what the mark in its place will say."""
        try:
            await self._hub.purge(edge, request_id, reason)
        except BrokerError as error:
            _log.warning("journal not purged yet", request_id=request_id, error=str(error))
            heapq.heappush(self._due, _Due(time.monotonic() + _LOOK_S, edge, request_id, reason))

    async def run(self) -> None:
        """Drop what is due, until cancelled."""
        while True:
            now = time.monotonic()
            while self._due and self._due[0].at <= now:
                due = heapq.heappop(self._due)
                await self.drop(due.edge, due.request_id, due.reason)
            await asyncio.sleep(_LOOK_S)
