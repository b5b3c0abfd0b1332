"""Dropping journals: at once when the end was delivered, else after the time in which a client may resume."""

import asyncio
import contextlib
import heapq
import time

import structlog

from broker.errors import BrokerError
from broker.journal import JournalHub

_log = structlog.stdlib.get_logger("inferflux.edge.retention")

_TRY_AGAIN_S = 5.0
# Purges on their way to the broker.
_PARALLEL = 32
# Journals it remembers; more are left to the stream's own age and size.
_MAX_KEPT = 100_000


class Retention:
    """Knows which of this edge's journals to drop when. What a dead edge leaves ages out with the stream."""

    def __init__(self, hub: JournalHub, resume_window_s: float) -> None:
        self._hub = hub
        self._resume_window_s = resume_window_s
        self._due: list[tuple[float, str]] = []
        self._wake = asyncio.Event()
        self._gate = asyncio.Semaphore(_PARALLEL)
        self._purging: set[asyncio.Task[None]] = set()
        self.num_forgotten = 0

    def __len__(self) -> int:
        return len(self._due)

    def keep_for_resume(self, request_id: str) -> None:
        self._put(time.monotonic() + self._resume_window_s, request_id)

    def drop(self, request_id: str) -> None:
        """Purge as soon as can be; again later when the broker does not answer."""
        self._put(time.monotonic(), request_id)
        self._wake.set()

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
        return bool(self._due) and self._due[0][0] <= time.monotonic()

    async def _until_due(self) -> None:
        while not self._is_due:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._due[0][0] - time.monotonic() if self._due else None):
                    await self._wake.wait()

    async def _begin_purge(self) -> None:
        await self._gate.acquire()
        task = asyncio.create_task(self._purge(heapq.heappop(self._due)[1]), name="purge")
        self._purging.add(task)
        task.add_done_callback(self._purging.discard)

    async def _purge(self, request_id: str) -> None:
        try:
            await self._hub.purge(request_id)
        except BrokerError as error:
            _log.warning("journal not purged yet", request_id=request_id, error=str(error))
            self._put(time.monotonic() + _TRY_AGAIN_S, request_id)
        finally:
            self._gate.release()

    def _put(self, due_at: float, request_id: str) -> None:
        if len(self._due) >= _MAX_KEPT:
            self.num_forgotten += 1
            return
        heapq.heappush(self._due, (due_at, request_id))
