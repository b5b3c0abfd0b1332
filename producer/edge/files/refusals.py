"""Refusals that the routes of files and batches share."""

from schemas.errors import ErrorCode, ServingError

_COME_BACK_S = 2.0


def no_such_file() -> ServingError:
    """The same for ids that never were and for files of others."""
    return ServingError(ErrorCode.FILE_NOT_FOUND, "There is no such file of yours.")


def storage_full() -> ServingError:
    return ServingError(ErrorCode.STORAGE_FULL, "There is no room for this file. Files that are deleted make some.")


def unreachable() -> ServingError:
    return ServingError(
        ErrorCode.BROKER_UNAVAILABLE,
        "The broker cannot be reached just now.",
        retryable=True,
        retry_after_s=_COME_BACK_S,
    )
