"""Logins are exchanged while everything runs."""

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from broker.connection import BrokerConfig, Connection
from broker.credentials import Login, accepted_logins, create_credentials, find_login, next_file
from broker.errors import BrokerUnavailable
from broker.roles import FIXED_USERS, Role, User
from broker.rotation import finish, prepare, rotate_embedded
from broker.server import write_users
from broker.topology import Topology
from schemas.control import ModelCard
from tests.support.nats import ServerOfATest
from tests.support.nats_wire import NatsWire
from tests.support.waiting import until

pytestmark = pytest.mark.nats

EDGE = User(Role.EDGE)


@pytest.fixture
async def server(tmp_path: Path) -> Any:
    server = ServerOfATest(tmp_path)
    create_credentials(server.credentials, ["acme"])
    await server.start()
    yield server
    await server.remove()


async def connect(server: ServerOfATest, role: Role, tenant: str | None = None) -> Connection:
    return await Connection.open(BrokerConfig(server.url, role, "test", server.credentials, tenant))


async def rotate(server: ServerOfATest, *users: User) -> None:
    assert server.pid is not None
    await rotate_embedded(server.url, server.pid, server.credentials.parent, list(users))


async def test_nothing_accepted_is_lost_while_all_logins_are_exchanged(server: ServerOfATest) -> None:
    model = ModelCard(id="echo", source="echo", backend="echo", default=True, created=1)
    users = [*FIXED_USERS, User(Role.BATCH, "acme")]
    old = create_credentials(server.credentials)
    connections = {user: await connect(server, *user) for user in users}
    await Topology(connections[User(Role.TOPOLOGY)]).apply((model,), 4)
    stored, is_over = 0, asyncio.Event()

    async def publish() -> None:
        nonlocal stored
        while not is_over.is_set():
            await connections[EDGE].publish_acked(f"inferflux.tok.e1.r{stored}.head", b"x", msg_id=str(stored))
            stored += 1

    publishing = asyncio.create_task(publish())
    await until(lambda: stored > 10)
    await rotate(server, *users)
    after = stored
    await until(lambda: all(each.is_connected and each.reconnects for each in connections.values()))
    await until(lambda: stored > after + 10)
    is_over.set()
    await publishing
    info = await connections[User(Role.INSPECTOR)].api("STREAM.INFO.INFERFLUX_TOKENS")
    assert info["state"]["messages"] == stored
    new = create_credentials(server.credentials)
    for user in users:
        assert new[user] != old[user]
        with pytest.raises(PermissionError):
            await NatsWire.open(server.port, old[user])
        await (await NatsWire.open(server.port, new[user])).close()
    for connection in connections.values():
        await connection.close()


async def test_only_those_named_are_exchanged(server: ServerOfATest) -> None:
    edge, worker = await connect(server, Role.EDGE), await connect(server, Role.WORKER)
    await rotate(server, EDGE)
    await until(lambda: edge.reconnects == 1)
    assert worker.reconnects == 0 and worker.is_connected
    await edge.close()
    await worker.close()


async def test_an_exchange_that_was_interrupted_is_taken_up(server: ServerOfATest) -> None:
    """The successor was made, and perhaps known to the server; then the command was killed."""
    prepare(server.credentials, [EDGE])
    successor = find_login(next_file(server.credentials, EDGE), Role.EDGE)
    await rotate(server, EDGE)
    assert find_login(server.credentials, Role.EDGE) == successor


async def test_a_restart_amid_an_exchange_takes_both(server: ServerOfATest) -> None:
    prepare(server.credentials, [EDGE])
    await server.kill()
    await server.start()
    for file in (server.credentials / "edge", next_file(server.credentials, EDGE)):
        login = find_login(file, Role.EDGE)
        assert isinstance(login, Login)
        await (await NatsWire.open(server.port, login)).close()


async def test_a_login_that_stays_refused_ends_the_connection(
    server: ServerOfATest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.complaints._SHUT_OUT_S", 0.1)
    edge = await connect(server, Role.EDGE)
    (server.credentials / "edge").write_text("user: edge\npassword: another\n")
    write_users(server.credentials.parent)
    (server.credentials / "edge").write_text("user: edge\npassword: none-that-holds\n")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGHUP)
    await until(lambda: edge.is_closed)


async def test_no_signal_goes_to_a_stranger(server: ServerOfATest) -> None:
    with pytest.raises(BrokerUnavailable, match="no nats-server of"):
        await rotate_embedded(server.url, os.getpid(), server.credentials.parent, [EDGE])
    assert not next_file(server.credentials, EDGE).exists()


def test_both_logins_hold_until_the_second_step(tmp_path: Path) -> None:
    create_credentials(tmp_path)
    (old,) = (login for user, login in accepted_logins(tmp_path) if user == EDGE)
    prepare(tmp_path, [EDGE])
    prepare(tmp_path, [EDGE])
    path = next_file(tmp_path, EDGE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second = (login for user, login in accepted_logins(tmp_path) if user == EDGE)
    assert first == old == find_login(tmp_path, Role.EDGE)
    assert second.user != old.user and second.password != old.password
    finish(tmp_path, FIXED_USERS)
    assert [login for user, login in accepted_logins(tmp_path) if user == EDGE] == [second]
    assert not path.exists() and stat.S_IMODE((tmp_path / "edge").stat().st_mode) == 0o600
