"""A streamed answer that outlives its connection: when that breaks, it is read on from behind the last event."""

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx2

from ops.client.sse import events
from ops.errors import Failure

# Waits before each try to read on; they begin anew when one got further. An edge that is started again needs a second
# or two.
PAUSES_S = (0.1, 0.5, 1.0, 2.0, 4.0)
RESUME = "X-InferFlux-Resume"
REQUEST_ID = "X-Request-Id"
# When this reader leaves for good the work ends with it, as it would have with the first connection.
_LEAVING = {"X-InferFlux-On-Disconnect": "cancel"}
# Do not hold the status back: the request's id comes at once, and where it stands as comments.
_TELL_PROGRESS = {"X-InferFlux-Queue-Updates": "on"}
_TRY_AGAIN = (502, 503, 504)

Send = Callable[..., AbstractContextManager[httpx2.Response]]
OnComment = Callable[[str], None]
ToFailure = Callable[[httpx2.Response | httpx2.TransportError], Failure]


class Broken(Exception):
    """A connection ended before its stream. `failure` says so to the user should it not be resumed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class ResumingStream:
    """One generation. `send(method, path, …)` opens a streamed response.

    `on_comment` gets what the server tells of the request before its answer. `request_id` is known once the server has
    accepted it.
    """

    def __init__(self, send: Send, to_failure: ToFailure, on_comment: OnComment | None = None) -> None:
        self._send = send
        self._to_failure = to_failure
        self._on_comment = on_comment
        self._headers = {} if on_comment is None else _TELL_PROGRESS
        self.request_id: str | None = None
        self._resume_path: str | None = None
        self._last_event_id: str | None = None

    def chunks(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Chunks as they come, each text once. Raises Failure when the answer fails or cannot be read to its end."""
        pauses, place = iter(PAUSES_S), self._last_event_id
        reading = self._read("POST", path, json={**body, "stream": True}, headers=self._headers)
        while True:
            try:
                with contextlib.closing(reading):
                    yield from reading
                return
            except Broken as broken:
                if self._last_event_id != place:
                    pauses, place = iter(PAUSES_S), self._last_event_id
                pause = next(pauses, None)
                if self._resume_path is None or pause is None:
                    raise broken.failure from None
                time.sleep(pause)
            behind = {"Last-Event-ID": place} if place is not None else {}
            reading = self._read("GET", self._resume_path, headers={**self._headers, **_LEAVING, **behind})

    def _read(self, method: str, path: str, **options: Any) -> Generator[dict[str, Any], None, None]:
        """The chunks of one connection. Raises Broken, Failure."""
        try:
            with self._send(method, path, **options) as response:
                self._resume_path = response.headers.get(RESUME, self._resume_path)
                self.request_id = self.request_id or response.headers.get(REQUEST_ID)
                if response.status_code != 200:
                    response.read()
                    failure = self._to_failure(response)
                    raise Broken(failure) if response.status_code in _TRY_AGAIN else failure
                yield from self._parse(response)
        except httpx2.TransportError as error:
            raise Broken(self._to_failure(error)) from None

    def _parse(self, response: httpx2.Response) -> Iterator[dict[str, Any]]:
        for event in events(response.iter_bytes(), self._on_comment):
            if event.data == "[DONE]":
                return
            chunk: dict[str, Any] = json.loads(event.data)
            if "error" in chunk:
                failure = Failure(message(chunk))
                raise Broken(failure) if "resume_url" in chunk["error"] else failure
            self._last_event_id = event.id if event.id is not None else self._last_event_id
            yield chunk
        raise Broken(Failure("the stream was cut before its end"))


def message(body: Any) -> str:
    """What an error object says."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return f"an error without a message: {body!r}"
    code = error.get("code")
    return f"{error.get('message')}{f' [{code}]' if code else ''}"
