"""The records of jobs whose lines this edge has, looked at every other second while it has any."""

import asyncio
import time
from typing import NamedTuple

from producer.edge.batch.hooks import ReadJob
from schemas.batch import BatchJob

FRESH_S = 2.0


class _Known(NamedTuple):
    asked_at: float
    record: BatchJob | None


class Jobs:
    """However many lines ask, a job is read once in a while. Holds the jobs of lines at hand and no others."""

    def __init__(self, read: ReadJob) -> None:
        self._read = read
        self._known: dict[tuple[str, str], _Known] = {}
        self._reading: dict[tuple[str, str], asyncio.Task[BatchJob | None]] = {}

    async def get(self, tenant: str, job: str) -> BatchJob | None:
        """As it was at most two seconds ago. Raises BrokerError."""
        name = (tenant, job)
        known = self._known.get(name)
        if known is not None and time.monotonic() - known.asked_at < FRESH_S:
            return known.record
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.create_task(self._ask(name), name=f"record of {job}")
            task.add_done_callback(lambda done: self._done(name, done))
        return await asyncio.shield(task)

    def _done(self, name: tuple[str, str], task: asyncio.Task[BatchJob | None]) -> None:
        self._reading.pop(name, None)
        if not task.cancelled():
            task.exception()  # whoever still waits for it is told

    async def _ask(self, name: tuple[str, str]) -> BatchJob | None:
        asked_at = time.monotonic()
        record = await self._read(*name)
        for old in [each for each, known in self._known.items() if asked_at - known.asked_at >= FRESH_S]:
            del self._known[old]
        self._known[name] = _Known(asked_at, record)
        return record
