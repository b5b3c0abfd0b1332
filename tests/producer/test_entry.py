"""The outermost layer, around applications that misbehave."""

import logging
from typing import Any

import orjson
import pytest
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from producer.edge.body import ClientLeft
from producer.edge.cors import Cors
from producer.edge.entry import Entry


class Recorder:
    """Calls an application once and keeps what it sends."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    async def call(self, app: Any, path: str = "/x/") -> dict[str, Any]:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        await Entry(app, Cors(()), Router())(scope, receive, self.send)
        return scope

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])


async def test_an_unforeseen_failure_is_a_500_error_object(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret detail")

    recorder = Recorder()
    with caplog.at_level(logging.CRITICAL):
        await recorder.call(breaks)
    assert recorder.messages[0]["status"] == 500
    error = orjson.loads(recorder.messages[1]["body"])["error"]
    assert (error["code"], error["type"]) == ("internal", "server_error")
    assert "secret" not in error["message"]
    assert recorder.headers[b"x-request-id"]


async def test_a_failure_amid_an_answer_breaks_it_off() -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    recorder = Recorder()
    with pytest.raises(RuntimeError):
        await recorder.call(breaks)
    assert len(recorder.messages) == 1


async def test_a_client_that_left_is_no_failure() -> None:
    async def left(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientLeft

    recorder = Recorder()
    await recorder.call(left)
    assert recorder.messages[0]["status"] >= 400


@pytest.mark.parametrize(("path", "served"), [("/", "/"), ("/a/", "/a"), ("/a//", "/a"), ("/a", "/a"), ("//", "/")])
async def test_a_slash_at_the_end_is_taken_off(path: str, served: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert (await Recorder().call(app, path))["path"] == served
