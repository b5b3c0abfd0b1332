"""Every user against every subject that any user is granted, on a real server: made from the grants themselves.

A witness, who may do everything, tells what got through.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.credentials import Login, create_credentials, write_private
from broker.roles import FIXED_USERS, Role, User, permissions
from broker.server_config import USERS_FILE
from tests.support.nats import ServerOfATest
from tests.support.nats_wire import NatsWire

pytestmark = pytest.mark.nats

TENANTS = ("acme", "acme2", "edge")
USERS = (*FIXED_USERS, *(User(Role.BATCH, tenant) for tenant in TENANTS))
WITNESS = Login("witness", "sees-everything")
# Whether anybody was granted them or not.
ADMINISTRATION = (
    "$JS.API.ACCOUNT.PURGE.INFERFLUX",
    "$JS.API.META.LEADER.STEPDOWN",
    "$JS.API.SERVER.REMOVE",
    "$JS.API.STREAM.CREATE.S",
    "$JS.API.STREAM.UPDATE.INFERFLUX_REQUESTS",
    "$JS.API.STREAM.DELETE.INFERFLUX_AUDIT",
    "$JS.API.STREAM.PURGE.INFERFLUX_AUDIT",
    "$JS.API.STREAM.PURGE.INFERFLUX_REQUESTS",
    "$JS.API.STREAM.MSG.DELETE.INFERFLUX_AUDIT",
    "$JS.API.STREAM.MSG.DELETE.KV_policy",
    "$JS.API.STREAM.SNAPSHOT.INFERFLUX_TOKENS",
    "$JS.API.STREAM.RESTORE.INFERFLUX_TOKENS",
    "$JS.API.STREAM.LEADER.STEPDOWN.INFERFLUX_TOKENS",
    "$JS.API.STREAM.PEER.REMOVE.INFERFLUX_TOKENS",
    "$JS.API.CONSUMER.CREATE.INFERFLUX_REQUESTS",
    "$JS.API.CONSUMER.CREATE.INFERFLUX_REQUESTS.c.inferflux.req.x",
    "$JS.API.CONSUMER.DURABLE.CREATE.INFERFLUX_REQUESTS.c",
    "$JS.API.CONSUMER.DELETE.INFERFLUX_REQUESTS.c",
    "$JS.API.CONSUMER.PAUSE.INFERFLUX_REQUESTS.c",
    "$JS.API.CONSUMER.UNPIN.INFERFLUX_REQUESTS.c",
    "$JS.API.CONSUMER.LEADER.STEPDOWN.INFERFLUX_REQUESTS.c",
    "$JS.API.CONSUMER.MSG.NEXT.INFERFLUX_REQUESTS.c",
    "$JS.API.DIRECT.GET.INFERFLUX_RESULTS",
    "$JS.ACK.INFERFLUX_TOKENS.c.1.1.1.1.0",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.INFERFLUX.CONNZ",
    "anything.else",
    "inferflux.anything.else",
)


def example(pattern: str) -> str:
    """A subject that the pattern covers."""
    return ".".join({"*": "x1", ">": "y1.z1"}.get(token, token) for token in pattern.split("."))


def covers(pattern: str, subject: str) -> bool:
    """Whether all that `subject` stands for, which may be a pattern itself, is within `pattern`."""
    allowed, asked = pattern.split("."), subject.split(".")
    for place, token in enumerate(allowed):
        if place >= len(asked):
            return False
        if token == ">":
            return True
        if asked[place] == ">" or (token != "*" and token != asked[place]):
            return False
    return len(asked) == len(allowed)


def granted_patterns() -> list[str]:
    """Everything that anybody may publish or hear."""
    grants = [permissions(*user) for user in USERS]
    return sorted({pattern for grant in grants for pattern in (*grant.publish, *grant.subscribe)})


SUBJECTS = sorted({*map(example, granted_patterns()), *ADMINISTRATION})
ASKED_FOR = sorted({*SUBJECTS, *granted_patterns(), ">", "*", "inferflux.>", "$JS.>", "$KV.>", "_INBOX.>", "$SYS.>"})


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[ServerOfATest]:
    """A server with all users, and with the witness in the same account."""
    server = ServerOfATest(directory)
    create_credentials(server.credentials, TENANTS)
    await server.start()
    users = directory / "nats" / USERS_FILE
    mine = f"users: [ {{ user: {WITNESS.user}, password: {WITNESS.password} }},"
    write_private(users, users.read_text().replace("users: [", mine, 1))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGHUP)
    try:
        yield server
    finally:
        await server.remove()


async def login_once_known(port: int, login: Login) -> NatsWire:
    while True:
        try:
            return await NatsWire.open(port, login)
        except PermissionError:
            await asyncio.sleep(0.01)


@pytest.fixture(params=USERS, ids=lambda user: user.name)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[User, NatsWire, NatsWire]]:
    async with served(tmp_path) as server:
        witness = await login_once_known(server.port, WITNESS)
        user = await NatsWire.open(server.port, create_credentials(server.credentials)[request.param])
        yield request.param, user, witness
        await user.close()
        await witness.close()


async def test_what_a_user_publishes_gets_through_where_granted_and_nowhere_else(
    pair: tuple[User, NatsWire, NatsWire],
) -> None:
    user, wire, witness = pair
    allowed = {each for each in SUBJECTS if any(covers(pattern, each) for pattern in permissions(*user).publish)}
    assert allowed
    for subject in SUBJECTS:
        witness.subscribe(subject)
    await witness.flush()
    for subject in SUBJECTS:
        wire.publish(subject, b"?")  # no request that JetStream would carry out
    await wire.flush()
    await witness.flush()
    assert wire.refused_publishes == set(SUBJECTS) - allowed
    assert set(witness.heard) == allowed


async def test_what_a_user_hears_was_granted(pair: tuple[User, NatsWire, NatsWire]) -> None:
    user, wire, witness = pair
    allowed = {each for each in ASKED_FOR if any(covers(pattern, each) for pattern in permissions(*user).subscribe)}
    for subject in ASKED_FOR:
        wire.subscribe(subject)
    await wire.flush()
    for subject in SUBJECTS:
        witness.publish(subject, b"?")
    await witness.flush()
    await wire.flush()
    assert wire.refused_subscriptions == set(ASKED_FOR) - allowed
    assert {each for each in wire.heard if each in SUBJECTS} == {each for each in SUBJECTS if each in allowed}


def test_patterns_are_compared_as_the_server_does() -> None:
    assert covers("a.>", "a.b.*") and covers("a.*", "a.*") and covers("a.*.>", "a.b.c.d") and covers(">", ">")
    for pattern, subject in (("a.>", "a"), ("a.*", "a.>"), ("a.b", "a.*"), ("a.*", "a.b.c"), ("a.b.c", "a.b")):
        assert not covers(pattern, subject)


def test_nobody_is_granted_what_only_administration_needs() -> None:
    """Of the list above only the topology has any, but for what is someone's work."""
    theirs = {
        user: {each for each in ADMINISTRATION if any(covers(p, each) for p in permissions(*user).publish)}
        for user in USERS
        if user.role is not Role.TOPOLOGY
    }
    assert theirs.pop(User(Role.WORKER)) == {"$JS.API.CONSUMER.MSG.NEXT.INFERFLUX_REQUESTS.c"}
    assert theirs.pop(User(Role.EDGE)) == {"$JS.API.DIRECT.GET.INFERFLUX_RESULTS"}
    assert theirs.pop(User(Role.INSPECTOR_FULL)) == {"$JS.API.DIRECT.GET.INFERFLUX_RESULTS"}
    assert not any(theirs.values())


def test_a_tenant_is_granted_nothing_of_anothers() -> None:
    own = {tenant: permissions(Role.BATCH, tenant) for tenant in TENANTS}
    for tenant, grants in own.items():
        for pattern in (*grants.publish, *grants.subscribe):
            others = (each for other, theirs in own.items() if other != tenant for each in (*theirs[0], *theirs[1]))
            assert not any(covers(pattern, each) or covers(each, pattern) for each in others)
