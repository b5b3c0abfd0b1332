"""The one place that renders a ServingError for a client."""

import math
from typing import Any

import orjson
from starlette.responses import Response

from broker.journal import PURGED
from producer.edge.ids import resume_path
from producer.limits.refusal import TooLarge
from schemas.errors import ErrorCode, ServingError, error_kind
from schemas.events import Cancelled, Failed

# An official SDK retries these statuses by itself, which cannot help here.
_NEVER_RETRY = frozenset(
    {
        ErrorCode.CANCELLED,
        ErrorCode.POISONED,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.IDEMPOTENCY_MISMATCH,
        ErrorCode.BUDGET_EXCEEDED,
        ErrorCode.STORAGE_FULL,
    }
)
_MAX_MESSAGE = 1000
_BROKER_BACK_S = 2.0
# Reason of the end that a call gets whose submission has an unknown outcome.
NOT_SUBMITTED = "not_submitted"
# Reason of the end that an administrator made.
BY_ADMINISTRATOR = "administrator"
# Of a stream, and of an answer that was interrupted: where to read on.
RESUME = "x-inferflux-resume"


class Interrupted(ServingError):
    """The connection ends, and the request does not. Says where it can be read on, and behind which event."""

    def __init__(self, code: ErrorCode, why: str, request_id: str, last_event_id: str | None) -> None:
        self.resume_url = resume_path(request_id)
        self.last_event_id = last_event_id
        behind = f" with Last-Event-ID: {last_event_id}" if last_event_id is not None else ""
        super().__init__(
            code,
            f"{why} The request goes on: read it at {self.resume_url}{behind}.",
            retryable=True,
            retry_after_s=1,
        )


def error_object(error: ServingError) -> dict[str, Any]:
    """The OpenAI error object, which is also what follows `data: ` after a stream began."""
    message = error.message
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + "…"
    body: dict[str, Any] = {
        "message": message,
        "type": error_kind(error.code).type,
        "param": error.param,
        "code": str(error.code),
    }
    if isinstance(error, Interrupted):
        body |= {"resume_url": error.resume_url, "last_event_id": error.last_event_id}
    return {"error": body}


def error_headers(error: ServingError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.code in _NEVER_RETRY or isinstance(error, TooLarge):
        headers["x-should-retry"] = "false"
    if isinstance(error, Interrupted):
        headers[RESUME] = error.resume_url
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="inferflux"'
    return headers


def error_response(error: ServingError, headers: dict[str, str] | None = None) -> Response:
    return Response(
        dumps(error_object(error)),
        status_code=error.status,
        headers=error_headers(error) | (headers or {}),
        media_type="application/json",
    )


def error_of(event: Failed | Cancelled) -> ServingError:
    """The failure a journal ended with."""
    if isinstance(event, Cancelled):
        if event.reason == PURGED:
            return ServingError(ErrorCode.JOURNAL_EXPIRED, "The journal was dropped: another reader had its end.")
        if event.reason == NOT_SUBMITTED:
            return not_submitted()
        if event.reason == BY_ADMINISTRATOR:
            return ServingError(ErrorCode.CANCELLED, "An administrator cancelled the request.")
        return ServingError(ErrorCode.CANCELLED, "The request was cancelled.")
    try:
        code = ErrorCode(event.code)
    except ValueError:
        code = ErrorCode.INTERNAL
    return ServingError(code, event.message, param=event.param, retryable=event.retryable)


def not_submitted() -> ServingError:
    return ServingError(
        ErrorCode.BROKER_UNAVAILABLE, "The request was not submitted.", retryable=True, retry_after_s=_BROKER_BACK_S
    )


def invalid(message: str, param: str | None = None) -> ServingError:
    return ServingError(ErrorCode.INVALID_PARAMETER, message, param=param)


def unsupported(message: str, param: str) -> ServingError:
    return ServingError(ErrorCode.UNSUPPORTED_PARAMETER, message, param=param)


def dumps(value: Any) -> bytes:
    """JSON; what is not UTF-8 encodable (lone surrogates out of a URL, say) is replaced."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(_scrub(value))


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrub(item) for item in value]
    return value
