"""What our client does otherwise than the library: when it writes, and how it hands over."""

import asyncio
import os
import signal

import pytest
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport

from broker.roles import Role
from tests.conftest import Broker

pytestmark = pytest.mark.nats
_SUBJECT = "inferflux.evt.r1.said"


async def test_what_is_published_arrives_in_order_however_much_it_is(broker: Broker) -> None:
    arrived: list[int] = []
    count = 400
    all_there = asyncio.Event()

    async def take(message: Msg) -> None:
        arrived.append(int(message.data[:6]))
        if len(arrived) == count:
            all_there.set()

    inspector = await broker.server.connect(Role.INSPECTOR)
    await inspector.subscribe("inferflux.evt.>", take, max_pending=0, max_pending_bytes=0)
    for number in range(count):
        # Far more than a socket takes at once, without a turn of the loop between.
        await broker.edge.publish(_SUBJECT, b"%06d" % number + b"x" * 20_000)
    await broker.edge.flush()
    async with asyncio.timeout(10):
        await all_there.wait()
    assert arrived == list(range(count))


async def test_what_is_published_in_one_turn_is_written_in_one_piece(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = broker.edge.raw._transport
    assert isinstance(library, TcpTransport)
    assert library._io_writer is not None
    socket, written = library._io_writer.transport, list[list[bytes]]()

    class Spy:
        def __getattr__(self, name: str) -> object:
            return getattr(socket, name)

        def writelines(self, pieces: list[bytes]) -> None:
            written.append(pieces)
            socket.writelines(pieces)

    monkeypatch.setattr(library._io_writer, "_transport", Spy())
    for _ in range(3):
        await broker.edge.publish(_SUBJECT, b"x")
    assert written == []
    await broker.edge.flush()
    assert sum(b"PUB inferflux.evt" in piece for piece in written[0]) == 3


async def test_what_is_published_last_is_sent_before_the_connection_closes(broker: Broker) -> None:
    heard = asyncio.Event()

    async def take(_: Msg) -> None:
        heard.set()

    inspector = await broker.server.connect(Role.INSPECTOR)
    await inspector.subscribe("inferflux.evt.>", take)
    await broker.edge.publish(_SUBJECT, b"x")
    await broker.edge.drain()
    async with asyncio.timeout(5):
        await heard.wait()


async def test_a_message_that_cannot_be_taken_does_not_end_the_connection(broker: Broker) -> None:
    taken: list[bytes] = []

    def take(message: Msg) -> None:
        if message.data == b"bad":
            raise ValueError("bad")
        taken.append(message.data)

    inspector = await broker.server.connect(Role.INSPECTOR)
    subscription = await inspector.hear("inferflux.evt.>", take)
    await broker.edge.publish(_SUBJECT, b"bad")
    await broker.edge.publish(_SUBJECT, b"good")
    await broker.edge.flush()
    await inspector.flush()
    assert taken == [b"good"]
    assert subscription.delivered == 0  # through the library's queue


async def test_what_may_be_lost_is_dropped_while_the_socket_takes_nothing(broker: Broker) -> None:
    if broker.server.pid is None:
        pytest.skip("the server runs in a container: its process cannot be stopped from here")
    os.kill(broker.server.pid, signal.SIGSTOP)
    try:
        for _ in range(200):  # more than the system's buffers hold
            broker.edge.publish_soon(_SUBJECT, b"x" * 60_000)
            await asyncio.sleep(0)
        assert broker.edge.dropped > 0
        assert broker.edge.raw._pending_data_size < 1 << 20
    finally:
        os.kill(broker.server.pid, signal.SIGCONT)


async def test_what_may_be_lost_goes_out_with_all_else_of_a_turn(broker: Broker) -> None:
    """However much that is: the socket has not refused it."""
    inspector, seen, all_there = await broker.server.connect(Role.INSPECTOR), 0, asyncio.Event()

    def take(message: Msg) -> None:
        nonlocal seen
        seen += 1
        if message.data == b"last":
            all_there.set()

    await inspector.hear("inferflux.evt.>", take)
    for _ in range(20):
        await broker.edge.publish(_SUBJECT, b"x" * 20_000)
    broker.edge.publish_soon(_SUBJECT, b"last")
    async with asyncio.timeout(10):
        await all_there.wait()
    assert (seen, broker.edge.dropped) == (21, 0)


async def test_what_may_be_lost_goes_out_where_the_library_writes(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a WebSocket, say."""
    inspector, seen = await broker.server.connect(Role.INSPECTOR), asyncio.Event()
    await inspector.hear("inferflux.evt.>", lambda message: seen.set())
    monkeypatch.setattr(broker.edge.raw, "_open_transport", lambda: None)
    broker.edge.publish_soon(_SUBJECT, b"x")
    async with asyncio.timeout(10):
        await seen.wait()


async def test_what_may_be_lost_is_dropped_while_there_is_no_connection(broker: Broker) -> None:
    broker.edge.publish_soon(_SUBJECT, b"x")
    assert broker.edge.dropped == 0
    await broker.edge.close()
    broker.edge.publish_soon(_SUBJECT, b"x")
    assert broker.edge.dropped == 1


async def test_nothing_is_kept_of_a_subscription_that_has_ended(broker: Broker) -> None:
    subscription = await broker.edge.hear("inferflux.ctl.edge.e1", lambda message: None)
    assert subscription._id in broker.edge.raw._direct
    await subscription.unsubscribe()
    assert subscription._id not in broker.edge.raw._direct
