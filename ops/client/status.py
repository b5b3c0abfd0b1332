"""Whether a server is ready, asked once or until it is."""

from dataclasses import asdict, dataclass
from typing import Any

import httpx2
from tenacity import RetryError, Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from ops.client.client import Client
from ops.errors import Failure

POLL_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Status:
    """`reason` is the server's own, empty when it is ready."""

    is_ready: bool
    reason: str
    version: str
    models: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["ready"] = document.pop("is_ready")
        return document


def read_status(client: Client, wait_s: float) -> Status:
    """Ask `/readyz`, for up to `wait_s` until it says yes, then the rest. Raises Failure when nothing listens."""
    answer = _wait_until_ready(client, wait_s)
    is_ready = answer.status_code == 200
    version = client.probe("/version")
    models = client.get("/v1/models")["data"]
    return Status(is_ready, "" if is_ready else _reason(answer), version.json().get("version", "?"), models)


def _wait_until_ready(client: Client, wait_s: float) -> httpx2.Response:
    attempts = Retrying(
        retry=retry_if_exception_type(Failure) | retry_if_result(lambda answer: answer.status_code != 200),
        wait=wait_fixed(POLL_EVERY_S),
        stop=stop_after_delay(wait_s),
    )
    try:
        return attempts(client.probe, "/readyz")
    except RetryError as error:
        # The last attempt's own answer or failure is what the caller wants to know.
        answer: httpx2.Response = error.last_attempt.result()
        return answer


def _reason(answer: httpx2.Response) -> str:
    try:
        error = answer.json().get("error") or {}
    except ValueError:
        return answer.text
    return str(error.get("message") or answer.text)
