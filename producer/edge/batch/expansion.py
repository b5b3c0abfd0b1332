"""From a submission to queued lines: whoever takes it reads the job's file and publishes line after line.

How far it has come stands in the job's record, so that after a crash another goes on there. What was published since is
published again: within two minutes the broker stores it once, and later the first result of a line stands.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from broker.batch_jobs import BatchJobs
from broker.batch_publisher import BatchPublisher
from broker.connection import Connection
from broker.errors import BlobMissing, StreamFull
from broker.files import find_file, read_file
from producer.edge.batch.lines import LineRefused, read_line, text_lines
from producer.edge.batch.room import max_line_bytes
from schemas.batch import BatchJob, BatchLine, BatchSubmission, LineError

Renew = Callable[[], Awaitable[None]]

# Between two notes of how far it is.
_PAGE_LINES = 1000
_PAGE_BYTES = 2 << 20
_PARALLEL = 128
_TURN_LINES = 64
_ROOM_S = 30.0
_PAUSE_S = 0.5


class Expansion:
    """Lines of a job that is cancelled or has expired are queued too: each gets its end where lines are taken."""

    def __init__(
        self, connection: Connection, jobs: BatchJobs, *, page_lines: int = _PAGE_LINES, room_s: float = _ROOM_S
    ) -> None:
        """`room_s` is how long it is waited for room in the queue while none is made."""
        self._connection = connection
        self._page_lines = page_lines
        self._room_s = room_s
        self._jobs = jobs

    async def expand(self, tenant: str, submission: BatchSubmission, renew: Renew, /) -> None:
        """Queue the lines that are not queued yet. `renew` is called before the next page, and while there is no room.

        Raises StreamFull when there is none for long, BrokerUnavailable: to be asked again.
        """
        job = await self._jobs.get(tenant, submission.submission)
        if job is None or job.errors or (job.num_queued or 0) >= (job.total or 0):
            return
        try:
            await self._queue_from(job, job.num_queued or 0, renew)
        except (BlobMissing, LineRefused):
            await self._fail(job)

    async def _queue_from(self, job: BatchJob, start: int, renew: Renew) -> None:
        file = await find_file(self._connection, job.tenant, job.input_file)
        if file is None:
            raise BlobMissing(f"{job.input_file} is gone")
        max_bytes = max_line_bytes(self._connection.max_payload)
        index, page, page_bytes = 0, list[BatchLine](), 0
        async for _, raw in text_lines(read_file(self._connection, file), max_bytes):
            if index >= start:
                page.append(read_line(job.job, index, raw, job.url, max_bytes))
                page_bytes += len(raw)
            index += 1
            if index % _TURN_LINES == 0:
                await asyncio.sleep(0)
            if len(page) >= self._page_lines or page_bytes >= _PAGE_BYTES:
                await self._queue(job, page, renew)
                page, page_bytes = [], 0
        if page:
            await self._queue(job, page, renew)

    async def _queue(self, job: BatchJob, page: Sequence[BatchLine], renew: Renew) -> None:
        """Publish a page, and note it. While there is no room, wait."""
        deadline = time.monotonic() + self._room_s
        await renew()
        left, full = await self._publish(job.tenant, page)
        while full is not None:
            if time.monotonic() >= deadline:
                raise full
            await asyncio.sleep(_PAUSE_S)
            await renew()
            num_before = len(left)
            left, full = await self._publish(job.tenant, left)
            if len(left) < num_before:
                deadline = time.monotonic() + self._room_s
        num_queued = page[-1].index + 1
        await self._jobs.change(job.tenant, job.job, lambda found: _noted(found, num_queued))

    async def _publish(self, tenant: str, lines: Sequence[BatchLine]) -> tuple[list[BatchLine], StreamFull | None]:
        """Those for which there was no room, and how the broker said so. Raises BrokerUnavailable."""
        publisher, gate = BatchPublisher(self._connection, tenant), asyncio.Semaphore(_PARALLEL)
        fulls: list[StreamFull] = []

        async def publish(line: BatchLine) -> bool:
            async with gate:
                if fulls:
                    return False
                try:
                    await publisher.publish(line)
                except StreamFull as full:
                    fulls.append(full)
                    return False
                return True

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(publish(line)) for line in lines]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        left = [line for line, task in zip(lines, tasks, strict=True) if not task.result()]
        return left, fulls[0] if fulls else None

    async def _fail(self, job: BatchJob) -> None:
        """The file cannot be read any more: lines that are not queued by now never will be."""
        problem = LineError(
            code="input_file_missing", message="The input file went before all of its lines were queued."
        )
        await self._jobs.change(job.tenant, job.job, lambda found: found.model_copy(update={"errors": (problem,)}))


def _noted(job: BatchJob, num_queued: int) -> BatchJob:
    return job.model_copy(update={"num_queued": max(job.num_queued or 0, num_queued)})
