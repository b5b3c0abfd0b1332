"""The batches of callers: brought, looked at and cancelled. Each sees their own and no others."""

import time
from typing import Any

from broker.batch_jobs import BatchJobs
from broker.batch_results import BatchResults
from broker.connection import Connection
from broker.errors import BrokerError, StreamFull
from broker.subjects import is_valid_id
from producer.auth.rbac import require_model
from producer.edge.batch.batch_types import CreateBatch
from producer.edge.batch.checking import Checker
from producer.edge.batch.room import max_line_bytes
from producer.edge.batch.view import BatchStatus, Standing, batch_object, status_of
from producer.edge.errors import invalid
from producer.edge.files.library import FileLibrary
from producer.edge.files.refusals import unreachable
from producer.edge.ids import mint_ordered_id
from producer.edge.models import Models
from schemas.batch import BatchJob, LineError
from schemas.errors import ErrorCode, ServingError
from schemas.files import StoredFile
from schemas.requests import Identity

WINDOW_S = 86400
_COME_BACK_S = 30.0
_OPEN = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING)


class Batches:
    """All raise ServingError (404 for what is not the caller's, 429, 503)."""

    def __init__(
        self, connection: Connection, jobs: BatchJobs, results: BatchResults, library: FileLibrary, models: Models
    ) -> None:
        self._connection = connection
        self._jobs = jobs
        self._results = results
        self._library = library
        self._models = models

    async def create(self, asked: CreateBatch, identity: Identity) -> BatchJob:
        """Accepted when it returns. A file that is no good makes a batch that has failed, with what is wrong in it."""
        file = await self._library.get(asked.input_file_id, identity)

        def check_model(name: str) -> None:
            require_model(identity, self._models.require(name).id)

        checker = Checker(asked.endpoint, max_line_bytes(self._connection.max_payload), check_model)
        checked = await checker.check(self._library.content(file))
        now = int(time.time())
        job = BatchJob(
            job=mint_ordered_id("batch_"),
            tenant=identity.tenant,
            owner=identity.owner,
            models=identity.grants.models,
            url=asked.endpoint,
            input_file=file.id,
            metadata=asked.metadata or {},
            total=checked.total if not checked.errors else 0,
            num_queued=0,
            errors=checked.errors,
            created_at=now,
            expires_at=now + WINDOW_S,
        )
        try:
            await self._jobs.create(job)
            if not job.errors:
                await self._submit(job)
        except StreamFull as error:
            raise _full() from error
        except BrokerError as error:
            raise unreachable() from error
        return job

    async def get(self, batch_id: str, identity: Identity) -> BatchJob:
        job = await self._find(identity.tenant, batch_id)
        if job is None or job.owner != identity.owner:
            raise no_such_batch()
        return job

    async def list_own(self, identity: Identity) -> list[BatchJob]:
        """The oldest first."""
        return [job for job in await self.list_all(identity.tenant) if job.owner == identity.owner]

    async def list_all(self, tenant: str | None = None) -> list[BatchJob]:
        """Those of a tenant, or of all, the oldest first."""
        try:
            jobs = await self._jobs.list(tenant)
        except BrokerError as error:
            raise unreachable() from error
        return sorted((job for job in jobs if job.total is not None), key=lambda job: job.job)

    async def cancel(self, job: BatchJob) -> BatchJob:
        """Begin no more of its lines; those that are left get their error. Again is harmless."""
        status = status_of(job, await self.standing(job))
        if status not in _OPEN:
            raise invalid(f"A batch with the status '{status}' cannot be cancelled.")
        now = int(time.time())
        try:
            cancelled = await self._jobs.change(
                job.tenant, job.job, lambda found: found.model_copy(update={"cancelled_at": found.cancelled_at or now})
            )
            if cancelled is not None and (cancelled.num_queued or 0) < (cancelled.total or 0):
                # Lines that are never queued never get their end. Whoever was to queue them may have been lost.
                await self._jobs.submit(job.tenant, job.job)
        except StreamFull as error:
            raise _full() from error
        except BrokerError as error:
            raise unreachable() from error
        if cancelled is None:
            raise no_such_batch()
        return cancelled

    async def describe(self, job: BatchJob) -> dict[str, Any]:
        return batch_object(job, await self.standing(job))

    async def standing(self, job: BatchJob) -> Standing:
        """What has come of it by now."""
        try:
            counts = await self._results.counts(job.tenant, job.job)
            standing = Standing(counts.done, counts.failed, None, time.time())
            if standing.is_whole(job):
                last_at = await self._jobs.last_result_at(job.tenant, job.job)
                standing = standing._replace(last_at=last_at)
        except BrokerError as error:
            raise unreachable() from error
        return standing

    async def reader_of(self, file: StoredFile) -> BatchJob | None:
        """A batch that has still to read the file."""
        for job in await self.list_all(file.tenant):
            if job.input_file == file.id and not job.errors and (job.num_queued or 0) < (job.total or 0):
                return job
        return None

    async def _find(self, tenant: str, batch_id: str) -> BatchJob | None:
        if not is_valid_id(batch_id):
            return None
        try:
            job = await self._jobs.get(tenant, batch_id)
        except BrokerError as error:
            raise unreachable() from error
        return job if job is not None and job.total is not None else None

    async def _submit(self, job: BatchJob) -> None:
        try:
            await self._jobs.submit(job.tenant, job.job)
        except BrokerError:
            problem = LineError(code=str(ErrorCode.QUEUE_FULL), message="The batch could not be queued.")
            await self._jobs.change(job.tenant, job.job, lambda found: found.model_copy(update={"errors": (problem,)}))
            raise


def no_such_batch() -> ServingError:
    """The same for ids that never were and for batches of others."""
    return ServingError(ErrorCode.BATCH_NOT_FOUND, "There is no such batch of yours.")


def _full() -> ServingError:
    return ServingError(
        ErrorCode.QUEUE_FULL, "The queue of batches is full.", retryable=True, retry_after_s=_COME_BACK_S
    )
