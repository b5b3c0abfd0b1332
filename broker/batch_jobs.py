"""The records of batch jobs: the bucket `batches`, written by compare-and-set. Role edge."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from broker.connection import Connection
from broker.errors import BrokerUnavailable, WrongSequence
from broker.outcomes import Expect
from broker.records import get_record, read_records
from broker.subjects import (
    BUCKET_BATCHES,
    STREAM_RESULTS,
    batch_subject,
    bucket_stream,
    job_subject,
    tenant_results,
)
from schemas.batch import BatchJob, BatchSubmission, decode_job, encode_job, encode_submission
from schemas.codec import CodecError

_log = logging.getLogger("inferflux.broker.batch_jobs")

_STREAM = bucket_stream(BUCKET_BATCHES)
_ATTEMPTS = 20
# Stands in the place of the model: a submission may be of several.
_SUBMISSION = "submission"


class _Stored(NamedTuple):
    job: BatchJob
    seq: int


class BatchJobs:
    """One edge's view of them: nothing is kept here, every question goes to the broker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, tenant: str, job: str) -> BatchJob | None:
        """None also for what can be no id. Raises BrokerUnavailable."""
        stored = await self._get(tenant, job)
        return stored.job if stored is not None else None

    async def create(self, job: BatchJob) -> None:
        """Raises WrongSequence when there is one of that id, StreamFull, BrokerUnavailable."""
        await self._connection.publish_acked(job_subject(job.tenant, job.job), encode_job(job), expect=Expect(0))

    async def change(self, tenant: str, job: str, change: Callable[[BatchJob], BatchJob]) -> BatchJob | None:
        """Write what `change` makes of the record that is there now; None when there is none.

        `change` is called again when somebody else wrote first, and may raise. Raises StreamFull, BrokerUnavailable.
        """
        for _ in range(_ATTEMPTS):
            stored = await self._get(tenant, job)
            if stored is None:
                return None
            changed = change(stored.job)
            if changed == stored.job:
                return changed
            try:
                subject = job_subject(tenant, job)
                await self._connection.publish_acked(subject, encode_job(changed), expect=Expect(stored.seq))
            except WrongSequence:
                continue
            return changed
        raise BrokerUnavailable(f"others keep writing the record of {job}")

    async def list(self, tenant: str | None) -> list[BatchJob]:
        """All of a tenant, or with None all. A replica that answers may lack the newest. Raises BrokerUnavailable."""
        records = await read_records(self._connection, _STREAM, job_subject(tenant, "*"), is_complete=lambda _: True)
        found = []
        for record in records:
            if record.payload:
                try:
                    found.append(decode_job(record.payload))
                except CodecError as error:
                    _log.warning("%s cannot be read: %s", record.subject, error)
        return found

    async def submit(self, tenant: str, job: str) -> None:
        """Queue the job for whoever queues its lines. Again is harmless. Raises StreamFull, BrokerUnavailable."""
        await self._connection.publish_acked(
            batch_subject(tenant, _SUBMISSION), encode_submission(BatchSubmission(submission=job))
        )

    async def last_result_at(self, tenant: str, job: str) -> float | None:
        """When the last result of a job was written, by the broker's clock. Raises BrokerUnavailable."""
        record = await get_record(
            self._connection, STREAM_RESULTS, {"last_by_subj": f"{tenant_results(tenant)[:-1]}{job}.>"}
        )
        return record.stored_at if record is not None else None

    async def _get(self, tenant: str, job: str) -> _Stored | None:
        record = await get_record(self._connection, _STREAM, {"last_by_subj": job_subject(tenant, job)})
        if record is None or not record.payload:
            return None
        try:
            return _Stored(decode_job(record.payload), record.seq)
        except CodecError as error:
            raise BrokerUnavailable(f"the record of {job} cannot be read: {error}") from error
