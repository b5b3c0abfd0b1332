"""The load generator's HTTP: one request, one connection."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import httptools
import orjson

from ops.bench.answer import Answer, Sample, error_text
from ops.bench.errors import RequestFailed

# Longer than any answer of a server that is worth measuring; ends the run instead of hanging in it.
REQUEST_LIMIT_S = 180.0


class Target(NamedTuple):
    """Where the load goes. `api_key` is sent as a bearer token."""

    host: str
    port: int
    api_key: str


def completion_request(target: Target, prompt: str, max_tokens: int) -> bytes:
    """The bytes of one request: greedy, streamed, exactly `max_tokens` tokens, by names that all the servers know.

    A raw prompt, not a chat: with a template in front all prompts would begin alike, and the figures would compare
    prefix caches.
    """
    return _request(target, "/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True})


def chat_request(target: Target, text: str, max_tokens: int, model: str = "default") -> bytes:
    """The same for a chat of one message, which a proxy passes on too: at most `max_tokens` tokens."""
    messages = [{"role": "user", "content": text}]
    return _request(target, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": max_tokens})


def _request(target: Target, path: str, fields: Mapping[str, Any]) -> bytes:
    streaming = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    body = orjson.dumps({**fields, **streaming})
    head = (
        f"POST {path} HTTP/1.1\r\n"
        f"Host: {target.host}:{target.port}\r\n"
        f"Authorization: Bearer {target.api_key}\r\n"
        "Content-Type: application/json\r\n"
        "Connection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(target: Target, request: bytes, on_content: Callable[[], None] | None = None) -> Sample:
    """Send a request on a new connection and wait for the whole answer. Raises RequestFailed.

    `on_content` is told of each piece. The clock starts when the connection is there. It is not kept for the next
    request: llama-server ends connections after a stream without saying so, and what is measured must not be how that
    is found out.
    """
    try:
        transport, exchange = await asyncio.get_running_loop().create_connection(
            lambda: _Exchange(on_content), target.host, target.port
        )
    except OSError as error:
        raise RequestFailed(f"{target.host}:{target.port} does not take a connection: {error}") from None
    try:
        async with asyncio.timeout(REQUEST_LIMIT_S):
            return await exchange.send(request)
    except TimeoutError:
        raise RequestFailed(f"no complete answer within {REQUEST_LIMIT_S:.0f} s") from None
    finally:
        transport.close()


class _Exchange(asyncio.Protocol):
    """Takes the times of one answer.

    A protocol and httptools instead of an HTTP client: the load shares its processors with what it measures.
    """

    def __init__(self, on_content: Callable[[], None] | None) -> None:
        self._on_content = on_content
        self._transport: asyncio.Transport | None = None
        self._result: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer(0.0)
        self._bodies: list[bytes] = []
        self._is_complete = False

    async def send(self, request: bytes) -> Sample:
        assert self._transport is not None
        self._answer = Answer(time.perf_counter(), self._on_content)
        self._transport.write(request)
        return await self._result

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(RequestFailed(f"the connection broke in mid-answer ({exc or 'closed by the server'})"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        try:
            self._parser.feed_data(data)
            self._advance(now)
        except httptools.HttpParserError as error:
            self._fail(RequestFailed(f"the answer is not HTTP: {error}"))
        except RequestFailed as error:
            self._fail(error)

    def on_body(self, body: bytes) -> None:
        self._bodies.append(body)

    def on_message_complete(self) -> None:
        self._is_complete = True

    def _advance(self, now: float) -> None:
        if not self._bodies and not self._is_complete:
            return
        if (status := self._parser.get_status_code()) != 200:
            if self._is_complete:
                raise RequestFailed(f"HTTP {status}: {error_text(_json(b''.join(self._bodies)))}")
            return
        self._answer.feed(b"".join(self._bodies), now)
        self._bodies.clear()
        if self._is_complete and not self._result.done():
            self._result.set_result(self._answer.finish(now))

    def _fail(self, error: RequestFailed) -> None:
        if not self._result.done():
            self._result.set_exception(error)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
