"""What can go wrong, by name.

One table gives every error code its HTTP status and OpenAI error type, so that edge, worker and command line cannot
disagree. A worker raises `ServingError`, the journal carries code and message, the edge renders the status.
"""

from enum import StrEnum
from typing import NamedTuple


class ErrorCode(StrEnum):
    INVALID_JSON = "invalid_json"
    INVALID_PARAMETER = "invalid_parameter"
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    UNKNOWN_PARAMETER = "unknown_parameter"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    NO_CHAT_TEMPLATE = "no_chat_template"
    CONTENT_FILTER = "content_filter"
    INVALID_API_KEY = "invalid_api_key"
    EXPIRED_TOKEN = "expired_token"
    INVALID_TOKEN = "invalid_token"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    PRIORITY_NOT_ALLOWED = "priority_not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    REQUEST_NOT_FOUND = "request_not_found"
    FILE_NOT_FOUND = "file_not_found"
    BATCH_NOT_FOUND = "batch_not_found"
    ROUTE_NOT_FOUND = "route_not_found"
    API_KEY_NOT_FOUND = "api_key_not_found"
    VERSION_NOT_FOUND = "version_not_found"
    WORKER_NOT_FOUND = "worker_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    JOURNAL_EXPIRED = "journal_expired"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    BUDGET_EXCEEDED = "budget_exceeded"
    INTERNAL = "internal"
    POISONED = "poisoned"
    NO_WORKER = "no_worker"
    MODEL_LOADING = "model_loading"
    WORKER_UNAVAILABLE = "worker_unavailable"
    MODEL_LOAD_FAILED = "model_load_failed"
    BROKER_UNAVAILABLE = "broker_unavailable"
    STORAGE_FULL = "storage_full"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    POLICY_UNAVAILABLE = "policy_unavailable"
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    POLICY_DENIED = "policy_denied"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    BATCH_CANCELLED = "batch_cancelled"
    BATCH_EXPIRED = "batch_expired"
    SLOW_READER = "slow_reader"


class ErrorKind(NamedTuple):
    status: int
    type: str


_INVALID = "invalid_request_error"
_KINDS = {
    ErrorCode.INVALID_API_KEY: ErrorKind(401, "authentication_error"),
    ErrorCode.EXPIRED_TOKEN: ErrorKind(401, "authentication_error"),
    ErrorCode.INVALID_TOKEN: ErrorKind(401, "authentication_error"),
    ErrorCode.INSUFFICIENT_SCOPE: ErrorKind(403, "permission_error"),
    ErrorCode.MODEL_NOT_ALLOWED: ErrorKind(403, "permission_error"),
    ErrorCode.PRIORITY_NOT_ALLOWED: ErrorKind(403, "permission_error"),
    ErrorCode.POLICY_DENIED: ErrorKind(403, "permission_error"),
    ErrorCode.MODEL_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.REQUEST_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.FILE_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.BATCH_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.ROUTE_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.API_KEY_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.VERSION_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.WORKER_NOT_FOUND: ErrorKind(404, "not_found_error"),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorKind(405, _INVALID),
    ErrorCode.JOURNAL_EXPIRED: ErrorKind(410, _INVALID),
    ErrorCode.PAYLOAD_TOO_LARGE: ErrorKind(413, _INVALID),
    ErrorCode.URI_TOO_LONG: ErrorKind(414, _INVALID),
    ErrorCode.HEADERS_TOO_LARGE: ErrorKind(431, _INVALID),
    ErrorCode.IDEMPOTENCY_MISMATCH: ErrorKind(422, _INVALID),
    ErrorCode.MODEL_LOAD_FAILED: ErrorKind(422, _INVALID),
    ErrorCode.QUEUE_FULL: ErrorKind(429, "rate_limit_error"),
    ErrorCode.RATE_LIMITED: ErrorKind(429, "rate_limit_error"),
    ErrorCode.BUDGET_EXCEEDED: ErrorKind(429, "rate_limit_error"),
    ErrorCode.INTERNAL: ErrorKind(500, "server_error"),
    ErrorCode.POISONED: ErrorKind(500, "server_error"),
    ErrorCode.NO_WORKER: ErrorKind(503, "server_error"),
    ErrorCode.MODEL_LOADING: ErrorKind(503, "server_error"),
    ErrorCode.WORKER_UNAVAILABLE: ErrorKind(503, "server_error"),
    ErrorCode.BROKER_UNAVAILABLE: ErrorKind(503, "server_error"),
    ErrorCode.STORAGE_FULL: ErrorKind(507, "server_error"),
    ErrorCode.AUDIT_UNAVAILABLE: ErrorKind(503, "server_error"),
    ErrorCode.POLICY_UNAVAILABLE: ErrorKind(503, "server_error"),
    ErrorCode.ISSUER_UNAVAILABLE: ErrorKind(503, "server_error"),
    ErrorCode.DEADLINE_EXCEEDED: ErrorKind(504, "server_error"),
    # Seen only by a follower of a request that somebody else cancelled.
    ErrorCode.CANCELLED: ErrorKind(500, "server_error"),
    # Of lines of a batch that nobody begins any more.
    ErrorCode.BATCH_CANCELLED: ErrorKind(409, _INVALID),
    ErrorCode.BATCH_EXPIRED: ErrorKind(409, _INVALID),
    # Seen only at the end of a stream that was cut.
    ErrorCode.SLOW_READER: ErrorKind(429, "rate_limit_error"),
}
_BAD_REQUEST = ErrorKind(400, _INVALID)


def error_kind(code: ErrorCode) -> ErrorKind:
    """HTTP status and OpenAI error type of a code."""
    return _KINDS.get(code, _BAD_REQUEST)


class ServingError(Exception):
    """A refusal or failure with a name, fit to be shown to the client that caused or suffered it.

    `retryable`: the same request can succeed later or elsewhere; `retry_after_s` is an honest estimate of when.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        param: str | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        return error_kind(self.code).status

    def __repr__(self) -> str:
        return f"ServingError({self.code}, {self.message!r})"
