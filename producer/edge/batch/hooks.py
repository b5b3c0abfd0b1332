"""What the drain asks of whoever keeps records of jobs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.batch import BatchJob, BatchSubmission


class ReadJob(Protocol):
    async def __call__(self, tenant: str, job: str) -> BatchJob | None:
        """The record of a job; None of one that has none. Raises BrokerError."""


class Expand(Protocol):
    async def __call__(self, tenant: str, submission: BatchSubmission, renew: Callable[[], Awaitable[None]], /) -> None:
        """Queue the lines of a submission. Done when it returns; raises BrokerError to be asked again."""


async def _no_record(tenant: str, job: str) -> BatchJob | None:
    return None


@dataclass(frozen=True, slots=True)
class BatchHooks:
    """Without records every line is its publisher's own. Without `expand` submissions cannot be read."""

    read_job: ReadJob = _no_record
    expand: Expand | None = None
