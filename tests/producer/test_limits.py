"""Clients that send too much, too slowly, or nothing at all, on real sockets."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from schemas.errors import ErrorCode, error_kind
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, Edge, chat, running_edge
from tests.producer.scripted_worker import ScriptedWorker

pytestmark = pytest.mark.nats

CHAT = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return str(error["code"])


class Socket:
    """A client that writes what it is told and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None = None) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: str | bytes) -> None:
        """Each piece by itself. A server that has hung up is no error: it may have answered before."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                assert self._writer is not None
                self._writer.write(piece.encode() if isinstance(piece, str) else piece)
                await self._writer.drain()

    async def bytewise(self, text: str) -> None:
        await self.send(*(bytes([byte]) for byte in text.encode()))

    async def answer(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = [line.partition(": ") for line in head[1:] if line]
        headers = {name.lower(): value for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, body)

    async def closed(self) -> bool:
        """Waits for the end; what still comes before it is another answer."""
        with contextlib.suppress(ConnectionError):
            return await self._reader.read() == b""
        return True

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@contextlib.asynccontextmanager
async def socket_to(edge: Edge) -> AsyncIterator[Socket]:
    socket = Socket(*await asyncio.open_connection("127.0.0.1", edge.address.port))
    try:
        yield socket
    finally:
        socket.close()


async def assert_refused(socket: Socket, code: ErrorCode, status: int) -> None:
    """With an error object like any other, and then the connection is closed."""
    answer = await socket.answer()
    assert (answer.status, answer.code) == (status, code)
    assert error_kind(code).status == status
    assert answer.headers["x-request-id"] and answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-type"] == "application/json"
    assert await socket.closed()


async def test_a_request_line_may_be_so_long_and_no_longer(edge: Edge) -> None:
    async with socket_to(edge) as socket:
        await socket.send(f"GET /nope?{'q' * 8000} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await socket.answer()).status == 404
        await socket.send(f"GET /nope?{'q' * 8192} HTTP/1.1\r\nHost: x\r\n\r\n")
        await assert_refused(socket, ErrorCode.URI_TOO_LONG, 414)


async def test_a_request_line_without_an_end_is_not_collected(edge: Edge) -> None:
    async with socket_to(edge) as socket:
        await socket.send("GET /", *["q" * 1000] * 12)
        await assert_refused(socket, ErrorCode.URI_TOO_LONG, 414)


async def test_headers_may_be_so_many_and_so_large_and_no_more(edge: Edge) -> None:
    get = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
    async with socket_to(edge) as socket:
        await socket.send(get, *[f"X-{number}: y\r\n" for number in range(127)], "\r\n")
        assert (await socket.answer()).status == 200
        await socket.send(get, f"X-Large: {'y' * 60_000}\r\n\r\n")
        assert (await socket.answer()).status == 200
        await socket.send(get, *[f"X-{number}: y\r\n" for number in range(128)], "\r\n")
        await assert_refused(socket, ErrorCode.HEADERS_TOO_LARGE, 431)
    async with socket_to(edge) as socket:
        await socket.send(get, *[f"X-{number}: {'y' * 8000}\r\n" for number in range(9)], "\r\n")
        await assert_refused(socket, ErrorCode.HEADERS_TOO_LARGE, 431)


async def test_a_header_without_an_end_is_not_collected(edge: Edge) -> None:
    async with socket_to(edge) as socket:
        await socket.send("GET /healthz HTTP/1.1\r\nX-Endless: ", *["y" * 10_000] * 12)
        await assert_refused(socket, ErrorCode.HEADERS_TOO_LARGE, 431)


@pytest.mark.parametrize("start", ["0\r\nX-Trailer: ", "5;extension="])
async def test_neither_is_what_stands_between_the_chunks_of_a_body(edge: Edge, start: str) -> None:
    async with socket_to(edge) as socket:
        head = f"{CHAT}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        await socket.send(head, start, *["y" * 10_000] * 12)
        await assert_refused(socket, ErrorCode.HEADERS_TOO_LARGE, 431)


async def test_a_large_body_is_no_header(edge: Edge) -> None:
    """Also in one-byte chunks, which are six times as long."""
    body = json.dumps(chat("x" * 30_000)).encode()
    chunks = b"".join(b"1\r\n%b\r\n" % body[place : place + 1] for place in range(len(body)))
    head = f"{CHAT}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with socket_to(edge) as socket:
        await socket.send(head, chunks, "0\r\n\r\n")
        answer = await socket.answer()
        assert answer.code == "context_length_exceeded"


async def test_a_body_may_be_so_large(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker, replace(CONFIG, max_body_bytes=1024)) as edge, socket_to(edge) as socket:
        await socket.send(f"{CHAT}Content-Length: 1025\r\n\r\n", "x" * 1025)
        await assert_refused(socket, ErrorCode.PAYLOAD_TOO_LARGE, 413)


@pytest.mark.parametrize(
    "request_text",
    [
        "\x16\x03\x01\x02\x00\x01\x00",  # TLS, to a port that speaks none
        "GET / HTTP/9.9\r\n\r\n",
        "GET\r\n\r\n",
        "get / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "POST /v1/completions HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_an_error_object(edge: Edge, request_text: str) -> None:
    async with socket_to(edge) as socket:
        await socket.send(request_text)
        await assert_refused(socket, ErrorCode.INVALID_JSON, 400)


@pytest.fixture
async def impatient(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Edge]:
    """An edge that waits for nothing longer than moments."""
    config = replace(CONFIG, header_timeout_s=0.2, idle_timeout_s=0.2, body_pace=(0.2, 1000))
    async with running_edge(broker, config) as edge:
        yield edge


async def test_a_request_byte_by_byte_is_a_request(edge: Edge) -> None:
    body = json.dumps(chat("one two"))
    async with socket_to(edge) as socket:
        await socket.bytewise(f"{CHAT}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}")
        answer = await socket.answer()
        assert (answer.status, "one two" in answer.body.decode()) == (200, True)


async def test_headers_that_do_not_end_in_time_end_the_connection(impatient: Edge) -> None:
    """However steadily they come: the time is that of all of them."""
    loop = asyncio.get_running_loop()
    # No transport: it would drop what has come when a write is refused, and this client goes on to write.
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", impatient.address.port))
        await loop.sock_sendall(client, b"GET /healthz HTTP/1.1\r\n")
        reading = asyncio.create_task(everything_from(client))
        while not reading.done():
            with contextlib.suppress(ConnectionError):
                for byte in b"X-More: y\r\n":
                    await loop.sock_sendall(client, bytes([byte]))
            await asyncio.wait({reading}, timeout=0.01)
        answers = asyncio.StreamReader()
        answers.feed_data(reading.result())
        answers.feed_eof()
        await assert_refused(Socket(answers), ErrorCode.INVALID_JSON, 400)


async def everything_from(client: socket.socket) -> bytes:
    """Until the server closes; a reset comes behind what it had sent."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.get_running_loop().sock_recv(client, 1 << 16):
            received += piece
    return received


async def test_a_connection_without_a_request_is_closed(impatient: Edge) -> None:
    async with socket_to(impatient) as socket:
        await assert_refused(socket, ErrorCode.INVALID_JSON, 400)


async def test_a_connection_that_idles_after_an_answer_is_closed(impatient: Edge) -> None:
    async with socket_to(impatient) as socket:
        await socket.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await socket.answer()).status == 200
        assert await socket.closed()


async def test_a_body_that_trickles_is_given_up(impatient: Edge, worker: ScriptedWorker) -> None:
    async with socket_to(impatient) as socket:
        await socket.send(f"{CHAT}Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
        answering = asyncio.create_task(assert_refused(socket, ErrorCode.INVALID_JSON, 400))
        while not answering.done():
            await socket.send("x")
            await asyncio.wait({answering}, timeout=0.01)
        answering.result()
    assert not worker.runs
