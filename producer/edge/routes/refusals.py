"""Refusals that generation routes share, for their operation records."""

from schemas.errors import ErrorCode

GENERATION_ERRORS = (
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_PARAMETER,
    ErrorCode.UNSUPPORTED_PARAMETER,
    ErrorCode.UNKNOWN_PARAMETER,
    ErrorCode.CONTEXT_LENGTH_EXCEEDED,
    ErrorCode.CONTENT_FILTER,
    ErrorCode.MODEL_NOT_ALLOWED,
    ErrorCode.PRIORITY_NOT_ALLOWED,
    ErrorCode.POLICY_DENIED,
    ErrorCode.MODEL_NOT_FOUND,
    ErrorCode.JOURNAL_EXPIRED,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.IDEMPOTENCY_MISMATCH,
    ErrorCode.QUEUE_FULL,
    ErrorCode.POISONED,
    ErrorCode.NO_WORKER,
    ErrorCode.BROKER_UNAVAILABLE,
    ErrorCode.POLICY_UNAVAILABLE,
    ErrorCode.DEADLINE_EXCEEDED,
)
