"""Rendering of failures."""

import orjson
import pytest

from producer.edge.errors import NOT_SUBMITTED, dumps, error_headers, error_object, error_of, error_response
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled, Failed


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_the_whole_object_and_a_status(code: ErrorCode) -> None:
    response = error_response(ServingError(code, "text", param="p"))
    body = orjson.loads(response.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert response.status_code >= 400
    assert response.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize(("after_s", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (59.5, "60"), (-5, "1")])
def test_retry_after_is_in_whole_seconds_of_at_least_one(after_s: float, header: str) -> None:
    error = ServingError(ErrorCode.QUEUE_FULL, "", retry_after_s=after_s)
    assert error_headers(error)["retry-after"] == header


def test_only_hopeless_failures_ask_not_to_retry() -> None:
    hopeless = {code for code in ErrorCode if "x-should-retry" in error_headers(ServingError(code, ""))}
    assert hopeless == {
        ErrorCode.CANCELLED,
        ErrorCode.POISONED,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.IDEMPOTENCY_MISMATCH,
        ErrorCode.BUDGET_EXCEEDED,  # it comes back tomorrow
        ErrorCode.STORAGE_FULL,  # somebody has to delete files
    }
    assert error_headers(ServingError(ErrorCode.POISONED, ""))["x-should-retry"] == "false"


def test_unauthenticated_says_how() -> None:
    assert error_headers(ServingError(ErrorCode.INVALID_API_KEY, ""))["www-authenticate"].startswith("Bearer")
    assert "www-authenticate" not in error_headers(ServingError(ErrorCode.INSUFFICIENT_SCOPE, ""))


def test_long_and_broken_messages_are_rendered_all_the_same() -> None:
    assert len(error_object(ServingError(ErrorCode.INTERNAL, "x" * 10_000))["error"]["message"]) < 1100
    assert orjson.loads(dumps(error_object(ServingError(ErrorCode.INTERNAL, "a\ud800b"))))


def test_a_journals_end_becomes_the_failure_it_names() -> None:
    error = error_of(Failed("r", "context_length_exceeded", "too long", False, "messages"))
    assert (error.code, error.message, error.param) == (
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        "too long",
        "messages",
    )
    assert error_of(Failed("r", "from the future", "?", True)).code is ErrorCode.INTERNAL
    assert error_of(Cancelled("asked")).code is ErrorCode.CANCELLED


def test_who_joined_a_call_that_was_never_submitted_may_try_again() -> None:
    error = error_of(Cancelled(NOT_SUBMITTED))
    assert (error.code, error.retryable) == (ErrorCode.BROKER_UNAVAILABLE, True)
    assert "retry-after" in error_headers(error)
