import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from broker.connection import BrokerConfig, Connection
from broker.errors import (
    BrokerTimeout,
    BrokerUnavailable,
    BrokerUnsuitable,
    NoResponders,
    NotConnected,
    PayloadTooLarge,
    Refused,
    StreamFull,
    StreamMissing,
    WrongSequence,
)
from broker.outcomes import Expect
from broker.roles import Role
from tests.conftest import Broker
from tests.support.nats import NatsServer

pytestmark = pytest.mark.nats
_RUN = "inferflux.tok.e1.r1.run"


async def test_nothing_listening_is_unavailable_in_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(BrokerUnavailable, match="no NATS at nats://") as caught:
        await Connection.open(BrokerConfig(url, Role.EDGE, "test"), timeout_s=0.3)
    assert "\n" not in str(caught.value)


async def test_wrong_credentials_are_refused_at_once(nats_server: NatsServer, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("user: edge\npassword: wrong\n")
    with pytest.raises(Refused, match="refuses the login of role edge"):
        await Connection.open(BrokerConfig(nats_server.url, Role.EDGE, "test", tmp_path / "bad"), timeout_s=30)


async def test_missing_credentials_are_refused(nats_server: NatsServer) -> None:
    with pytest.raises(Refused):
        await Connection.open(BrokerConfig(nats_server.url, Role.EDGE, "test"), timeout_s=30)


@asynccontextmanager
async def _speaker(version: str, answer: Callable[[str], bytes | None]) -> AsyncIterator[str]:
    """Something that speaks just enough NATS: greets with `version`, answers requests with `answer(subject)`."""
    server = await asyncio.start_server(lambda r, w: _speak(r, w, version, answer), "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _speak(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: str, answer: Callable[[str], bytes | None]
) -> None:
    info = {"server_id": "x", "version": version, "headers": True, "max_payload": 1 << 20}
    writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
    sids: dict[str, str] = {}
    while line := (await reader.readline()).decode().split():
        match line:
            case ["PING"]:
                writer.write(b"PONG\r\n")
            case ["SUB", subject, sid]:
                sids[subject] = sid
            case ["PUB", subject, reply, size]:
                await reader.readexactly(int(size) + 2)
                body = answer(subject)
                sid = next(iter(sids.values()))
                if body is None:
                    header = b"NATS/1.0 503\r\n\r\n"
                    writer.write(f"HMSG {reply} {sid} {len(header)} {len(header)}\r\n".encode() + header + b"\r\n")
                else:
                    writer.write(f"MSG {reply} {sid} {len(body)}\r\n".encode() + body + b"\r\n")
    writer.close()


async def test_a_server_that_is_too_old_is_unsuitable() -> None:
    async with _speaker("2.9.10", lambda _: None) as url:
        with pytest.raises(BrokerUnsuitable, match=r"nats-server 2\.9\.10 is too old: 2\.12 or later is needed"):
            await Connection.open(BrokerConfig(url, Role.EDGE, "test"))


async def test_a_server_without_jetstream_is_unsuitable() -> None:
    async with _speaker("2.15.1", lambda _: None) as url:
        with pytest.raises(BrokerUnsuitable, match="JetStream is off"):
            await Connection.open(BrokerConfig(url, Role.EDGE, "test"))


async def test_an_account_without_jetstream_is_unsuitable() -> None:
    error = {"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"}
    async with _speaker("2.15.1", lambda _: json.dumps({"error": error}).encode()) as url:
        with pytest.raises(BrokerUnsuitable, match="JetStream is off for this account"):
            await Connection.open(BrokerConfig(url, Role.EDGE, "test"))


async def test_an_undecided_conditional_write_is_tried_again() -> None:
    undecided = {"code": 400, "err_code": 10164, "description": "wrong last sequence"}
    answers = [json.dumps({"error": undecided}).encode(), json.dumps({"stream": "S", "seq": 7}).encode()]

    def answer(subject: str) -> bytes:
        return b"{}" if subject == "$JS.API.INFO" else answers.pop(0)

    async with _speaker("2.15.1", answer) as url:
        connection = await Connection.open(BrokerConfig(url, Role.WORKER, "test"))
        # The speaker reads no headers, so that this goes without the condition.
        assert (await connection.publish_acked(_RUN, b"x")).seq == 7
        await connection.close()
    assert not answers


@pytest.mark.parametrize(
    ("code", "err_code", "description"),
    [
        (400, 10002, "resource limits exceeded for account"),
        (503, 10023, "insufficient resources"),
        (500, 10047, "insufficient storage resources available"),
        (503, 10077, "maximum bytes exceeded"),
    ],
)
async def test_full_storage_is_said_so_at_once(code: int, err_code: int, description: str) -> None:
    full = json.dumps({"error": {"code": code, "err_code": err_code, "description": description}}).encode()
    async with _speaker("2.15.1", lambda subject: b"{}" if subject == "$JS.API.INFO" else full) as url:
        connection = await Connection.open(BrokerConfig(url, Role.WORKER, "test"))
        with pytest.raises(StreamFull) as caught:
            await connection.publish_acked(_RUN, b"x")
        assert not caught.value.is_cap_of_subject
        await connection.close()


async def test_a_lost_conditional_write_is_final(broker: Broker) -> None:
    first = await broker.worker.publish_acked(_RUN, b"a", expect=Expect(0))
    with pytest.raises(WrongSequence):
        await broker.worker.publish_acked(_RUN, b"b", expect=Expect(0))
    ev = _RUN.replace("run", "ev")
    assert (await broker.worker.publish_acked(ev, b"c", expect=Expect(first.seq, _RUN))).seq == first.seq + 1
    with pytest.raises(WrongSequence):
        await broker.worker.publish_acked(ev, b"d", expect=Expect(first.seq + 1, _RUN))


async def test_a_full_subject_is_final_and_others_still_take(broker: Broker) -> None:
    await broker.server.connect(Role.TOPOLOGY)
    full = broker.model.model_copy(update={"queue_max": 0})
    await broker.topology.api("STREAM.DELETE.INFERFLUX_REQUESTS")
    await broker.apply(full, fleet_slots=2)
    for _ in range(2):
        await broker.edge.publish_acked("inferflux.req.echo.low.0", b"x")
    with pytest.raises(StreamFull):
        await broker.edge.publish_acked("inferflux.req.echo.low.0", b"x")
    await broker.edge.publish_acked("inferflux.req.echo.high.0", b"x")


async def test_the_same_message_id_is_stored_once(broker: Broker) -> None:
    one = await broker.edge.publish_acked("inferflux.req.echo.low.0", b"x", msg_id="r1.0")
    two = await broker.edge.publish_acked("inferflux.req.echo.low.0", b"x", msg_id="r1.0")
    assert (one.duplicate, two.duplicate) == (False, True)
    assert one.seq == two.seq


async def test_a_missing_stream_is_waited_for_and_then_named(nats_server: NatsServer) -> None:
    edge = await nats_server.connect(Role.EDGE)
    with pytest.raises(StreamMissing, match="is the topology applied"):
        await edge.publish_acked("inferflux.req.echo.low.0", b"x", give_up_s=0.2)


async def test_a_message_over_the_limit_is_refused_without_closing_the_connection(broker: Broker) -> None:
    with pytest.raises(PayloadTooLarge):
        await broker.edge.publish_acked("inferflux.req.echo.low.0", bytes(broker.edge.max_payload + 1))
    assert broker.edge.is_connected


async def test_a_publish_that_is_not_allowed_fails_at_once(broker: Broker) -> None:
    with pytest.raises(Refused, match="role worker may not"):
        await broker.worker.publish_acked("inferflux.req.echo.low.0", b"x", give_up_s=30)


async def test_requests_tell_silence_from_absence(broker: Broker) -> None:
    with pytest.raises(NoResponders):
        await broker.edge.request("inferflux.ctl.worker.nobody", b"ping", 30)

    async def say_nothing(message: Msg) -> None:
        pass

    await broker.worker.subscribe("inferflux.ctl.worker.w1", say_nothing)
    with pytest.raises(BrokerTimeout):
        await broker.edge.request("inferflux.ctl.worker.w1", b"ping", 0.05)


async def test_an_acked_publish_survives_a_restart_of_the_broker(broker: Broker) -> None:
    reconnected = asyncio.Event()

    async def note() -> None:
        reconnected.set()

    broker.edge.on_reconnect(note)
    await broker.server.kill()
    publishing = asyncio.create_task(broker.edge.publish_acked("inferflux.req.echo.low.0", b"x", msg_id="r1.0"))
    await asyncio.sleep(0)
    await broker.server.start()
    assert (await publishing).seq == 1
    await reconnected.wait()
    assert broker.edge.reconnects == 1


async def test_a_request_on_its_way_fails_with_the_connection(broker: Broker) -> None:
    async def say_nothing(message: Msg) -> None:
        pass

    await broker.worker.subscribe("inferflux.ctl.worker.w1", say_nothing)
    asking = asyncio.create_task(broker.edge.request("inferflux.ctl.worker.w1", b"ping", 50))
    await broker.edge.flush()
    await broker.server.kill()
    with pytest.raises(NotConnected):
        await asking
    with pytest.raises(NotConnected):
        await broker.edge.request("inferflux.ctl.worker.w1", b"ping", 50)


async def test_unacked_messages_are_dropped_and_counted_while_disconnected(broker: Broker) -> None:
    await broker.server.kill()
    await broker.edge.publish("inferflux.evt.r1.test", b"x")
    assert broker.edge.dropped == 1


async def test_giving_up_while_disconnected_says_so(broker: Broker) -> None:
    await broker.server.kill()
    with pytest.raises(BrokerUnavailable):
        await broker.edge.publish_acked("inferflux.req.echo.low.0", b"x", give_up_s=0.1)


async def test_close_may_be_called_again_and_ends_waiting(nats_server: NatsServer) -> None:
    edge = await nats_server.connect(Role.EDGE)
    await edge.drain()
    await edge.close()
    assert not edge.is_connected
    assert edge.is_closed
