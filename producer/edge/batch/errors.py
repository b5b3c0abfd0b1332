"""Why a line is not answered now, or not any more."""

import time

from schemas.batch import BatchJob
from schemas.errors import ErrorCode, ServingError


class Leaving(Exception):
    """The edge shuts down: the line goes back, and what runs of it goes on."""


def check_open(record: BatchJob | None) -> None:
    """Raises ServingError (409) when no line of the job is to be begun any more."""
    if record is None:
        return
    check_not_cancelled(record)
    if record.expires_at <= time.time():
        raise ServingError(ErrorCode.BATCH_EXPIRED, "The batch expired before this line was begun.")


def check_not_cancelled(record: BatchJob | None) -> None:
    """Raises ServingError (409)."""
    if record is not None and record.cancelled_at is not None:
        raise ServingError(ErrorCode.BATCH_CANCELLED, "The batch was cancelled before this line was answered.")
