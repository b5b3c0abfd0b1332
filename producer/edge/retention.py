"""Dropping journals: at once when the end was delivered, else after the time in which a client may resume.

What a dead edge leaves is dropped by whoever delivers its end, or ages out with the stream; it cannot be read for
longer than anything else (`gone`).
"""

import asyncio
import contextlib
import heapq
import time
from typing import NamedTuple

import structlog

from broker.errors import BrokerError
from broker.journal import LAPSED, PURGED, JournalHub

_log = structlog.stdlib.get_logger("inferflux.edge.retention")

_TRY_AGAIN_S = 5.0
# Purges on their way to the broker.
_PARALLEL = 32
# Journals it remembers; more are left to the stream's own age and size.
_MAX_KEPT = 100_000


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
        self._wake = asyncio.Event()
        self._gate = asyncio.Semaphore(_PARALLEL)
        self._purging: set[asyncio.Task[None]] = set()
        self.num_forgotten = 0

    def __len__(self) -> int:
        return len(self._due)

    def keep_for_resume(self, edge: str, request_id: str) -> None:
        self._put(_Due(time.monotonic() + self._resume_window_s, edge, request_id, LAPSED))

    def drop(self, edge: str, request_id: str, reason: str = PURGED) -> None:
        """Purge as soon as can be; again later when the broker does not answer.

        `reason` is what the mark in the journal's place will say.
        """
        self._put(_Due(time.monotonic(), edge, request_id, reason))

    async def run(self) -> None:
        """Drop what is due, until cancelled."""
        while True:
            await self._until_due()
            await self._begin_purge()

    async def close(self, timeout_s: float) -> None:
        """Drop what is due now, as far as the time goes. `run` has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._is_due:
                    await self._begin_purge()
                if self._purging:
                    await asyncio.wait(self._purging)
        for task in self._purging:
            task.cancel()

    @property
    def _is_due(self) -> bool:
        return bool(self._due) and self._due[0].at <= time.monotonic()

    async def _until_due(self) -> None:
        while not self._is_due:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._due[0].at - time.monotonic() if self._due else None):
                    await self._wake.wait()

    async def _begin_purge(self) -> None:
        await self._gate.acquire()
        task = asyncio.create_task(self._purge(heapq.heappop(self._due)), name="purge")
        self._purging.add(task)
        task.add_done_callback(self._purging.discard)

    async def _purge(self, due: _Due) -> None:
        try:
            await self._hub.purge(due.edge, due.request_id, due.reason)
        except BrokerError as error:
            _log.warning("journal not purged yet", request_id=due.request_id, error=str(error))
            self._put(due._replace(at=time.monotonic() + _TRY_AGAIN_S))
        finally:
            self._gate.release()

    def _put(self, due: _Due) -> None:
        if len(self._due) >= _MAX_KEPT:
            self.num_forgotten += 1
            return
        heapq.heappush(self._due, due)
        if self._due[0] is due:
            self._wake.set()
