"""Whether an answer was taken, told from the connection alone."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from producer.edge.wire import Wire
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what is on its way")

# More than the client's side holds, and less than the server's.
ANSWER = b"x" * 40_000


class Connection(asyncio.Protocol):
    """The server's end, which tells its wire what an edge's would."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.cycle = SimpleNamespace(response_complete=True)
        self.wire = Wire(self.transport, cast(RequestResponseCycle, self.cycle))

    def eof_received(self) -> None:
        self.wire.client_ended()
        self.at_eof()

    def at_eof(self) -> None:
        """Nothing more, but in one test."""

    def connection_lost(self, error: Exception | None) -> None:
        self.wire.lost(error)


class Pair:
    """Both ends; the client reads only when it is told to."""

    def __init__(self, client: socket.socket, server: Connection) -> None:
        self.client = client
        self.connection = server
        self.wire = server.wire
        self.transport = server.transport

    async def read_all(self) -> None:
        left = len(ANSWER)
        while left:
            left -= len(await asyncio.get_running_loop().sock_recv(self.client, 65536))


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    accepted: asyncio.Queue[Connection] = asyncio.Queue()

    def make() -> Connection:
        connection = Connection()
        accepted.put_nowait(connection)
        return connection

    async with await loop.create_server(make, "127.0.0.1", 0) as server:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        connection = await accepted.get()
        await until(lambda: hasattr(connection, "wire"))
        found = Pair(client, connection)
        found.transport.write(ANSWER)
        assert found.transport.get_write_buffer_size() == 0
        yield found
        found.transport.abort()
        client.close()


async def test_an_answer_is_taken_once_it_was_read(pair: Pair) -> None:
    assert not pair.wire.is_taken
    await pair.read_all()
    await until(lambda: pair.wire.is_taken)


async def test_a_reset_is_never_taken_in_any_round_of_the_loop(pair: Pair) -> None:
    pair.client.close()
    while not pair.wire.is_dropped:
        assert not pair.wire.is_taken
        await asyncio.sleep(0)
    assert not pair.wire.is_taken


async def test_a_client_that_leaves_with_all_it_was_sent_has_taken_it(pair: Pair) -> None:
    await pair.read_all()
    await until(lambda: pair.wire.is_taken)
    pair.client.close()
    await asyncio.wait_for(pair.wire.wait_news(5), 10)
    assert pair.wire.is_taken


async def test_what_we_close_ourselves_is_taken_once_the_connection_has_ended_in_order(pair: Pair) -> None:
    pair.transport.close()
    assert not pair.wire.is_taken
    await pair.wire.wait_news(5)
    assert pair.wire.is_taken


async def test_a_client_that_leaves_in_order_before_the_end_has_not_taken_the_answer(pair: Pair) -> None:
    pair.connection.cycle.response_complete = False
    await pair.read_all()
    pair.client.close()
    await asyncio.wait_for(pair.wire.wait_news(5), 10)
    # What is sent now goes nowhere, and no error tells so.
    assert not pair.wire.is_taken


async def test_what_is_sent_after_the_client_has_ended_is_not_taken(pair: Pair) -> None:
    """The rest of the answer is written in the round of the loop in which its end was seen."""
    cycle = pair.connection.cycle
    cycle.response_complete = False

    def send_the_rest() -> None:
        pair.transport.write(b"the rest")
        cycle.response_complete = True

    pair.connection.at_eof = send_the_rest  # type: ignore[method-assign]
    await pair.read_all()
    pair.client.close()
    await asyncio.wait_for(pair.wire.wait_news(5), 10)
    assert not pair.wire.is_taken
