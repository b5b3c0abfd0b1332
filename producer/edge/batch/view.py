"""A batch as it is shown: what it is follows from its record and from how many results there are. Pure."""

from enum import StrEnum
from typing import Any, NamedTuple

from producer.edge.batch.output_ids import ResultKind, output_id
from schemas.batch import BatchJob


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Standing(NamedTuple):
    """What has come of a job by `now`. `last_at` is when the last result came, None without any. Unix seconds."""

    done: int
    failed: int
    last_at: float | None
    now: float

    def is_whole(self, job: BatchJob) -> bool:
        """Whether each line has its result."""
        return self.done + self.failed >= (job.total or 0)


def status_of(job: BatchJob, standing: Standing) -> BatchStatus:
    """Lines that a cancellation or the end of the window leaves over get a result too, so every job has an end."""
    if job.errors:
        return BatchStatus.FAILED
    last_at = standing.last_at if standing.last_at is not None else float(job.created_at)
    if standing.is_whole(job):
        if job.cancelled_at is not None and last_at >= job.cancelled_at:
            return BatchStatus.CANCELLED
        return BatchStatus.EXPIRED if last_at >= job.expires_at else BatchStatus.COMPLETED
    if job.cancelled_at is not None:
        return BatchStatus.CANCELLING
    if standing.now >= job.expires_at:
        return BatchStatus.FINALIZING
    has_begun = bool(job.num_queued) or standing.done + standing.failed > 0
    return BatchStatus.IN_PROGRESS if has_begun else BatchStatus.VALIDATING


def batch_object(job: BatchJob, standing: Standing) -> dict[str, Any]:
    """In the shape that OpenAI gave it."""
    status = status_of(job, standing)
    ended_at = int(standing.last_at) if standing.last_at is not None else None
    has_begun = status not in (BatchStatus.FAILED, BatchStatus.VALIDATING)
    is_finalized = status in (BatchStatus.COMPLETED, BatchStatus.EXPIRED)
    return {
        "id": job.job,
        "object": "batch",
        "endpoint": job.url,
        "errors": _errors(job),
        "input_file_id": job.input_file,
        "completion_window": "24h",
        "status": str(status),
        "output_file_id": output_id(job.job, ResultKind.OUTPUT) if standing.done else None,
        "error_file_id": output_id(job.job, ResultKind.ERRORS) if standing.failed else None,
        "created_at": job.created_at,
        "in_progress_at": job.created_at if has_begun else None,
        "expires_at": job.expires_at,
        "finalizing_at": job.expires_at if status is BatchStatus.FINALIZING else ended_at if is_finalized else None,
        "completed_at": ended_at if status is BatchStatus.COMPLETED else None,
        "failed_at": job.created_at if status is BatchStatus.FAILED else None,
        "expired_at": job.expires_at if status is BatchStatus.EXPIRED else None,
        "cancelling_at": job.cancelled_at if status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED) else None,
        "cancelled_at": ended_at if status is BatchStatus.CANCELLED else None,
        "request_counts": {"total": job.total or 0, "completed": standing.done, "failed": standing.failed},
        "metadata": job.metadata or None,
    }


def _errors(job: BatchJob) -> dict[str, Any] | None:
    if not job.errors:
        return None
    data = [{"code": error.code, "message": error.message, "param": None, "line": error.line} for error in job.errors]
    return {"object": "list", "data": data}
