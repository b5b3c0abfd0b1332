"""The permission matrix, against a real server with the generated configuration."""

import json
from typing import Any

import pytest

from broker.connection import Connection
from broker.errors import NoResponders, Refused
from broker.roles import FIXED_USERS, Role, inbox_prefix, permissions
from tests.conftest import Broker

pytestmark = pytest.mark.nats

_READER = {"ack_policy": "none", "deliver_policy": "new"}


def _consumer(stream: str, name: str, subject: str) -> tuple[str, dict[str, Any]]:
    config = {**_READER, "name": name, "filter_subject": subject}
    api = f"$JS.API.CONSUMER.CREATE.{stream}.{name}.{subject}"
    return api, {"stream_name": stream, "config": config, "action": "create"}


_REQUEST = "inferflux.req.echo.high.0"
_ACK = "$JS.ACK.INFERFLUX_REQUESTS.echo-high-0.1.1.1.1.0"
_JOURNAL = "inferflux.tok.e1.r1"
_NEXT = "$JS.API.CONSUMER.MSG.NEXT.INFERFLUX_REQUESTS.echo-high-0"

# role: what it does in its work, as (subject, body)
_ALLOWED: dict[Role, list[tuple[str, Any]]] = {
    Role.EDGE: [
        (_REQUEST, {}),
        (f"{_JOURNAL}.head", {}),
        (f"{_JOURNAL}.run", {}),
        ("inferflux.blob.b1.0", {}),
        ("inferflux.ctl.cancel.r1", {}),
        ("inferflux.ctl.worker.w1", {}),
        ("inferflux.heard.abc.1", {}),
        ("inferflux.evt.r1.accepted", {}),
        (_ACK, {}),
        ("$JS.API.INFO", {}),
        ("$JS.API.STREAM.MSG.DELETE.INFERFLUX_REQUESTS", {"seq": 99}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_REQUESTS", {"seq": 99}),
        ("$JS.API.CONSUMER.INFO.INFERFLUX_REQUESTS.echo-high-0", {}),
        ("$JS.API.STREAM.INFO.INFERFLUX_TOKENS", {}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_TOKENS", {"seq": 99}),
        ("$JS.API.DIRECT.GET.INFERFLUX_TOKENS", {"seq": 99}),
        _consumer("INFERFLUX_TOKENS", "reader-1", "inferflux.tok.e1.>"),
        ("$JS.API.CONSUMER.DELETE.INFERFLUX_TOKENS.reader-1", {}),
        ("$JS.API.STREAM.PURGE.INFERFLUX_TOKENS", {"filter": f"{_JOURNAL}.*"}),
        ("$JS.API.STREAM.PURGE.INFERFLUX_BLOBS", {"filter": "inferflux.blob.b1.*"}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_DLQ", {"seq": 99}),
        ("$JS.API.STREAM.MSG.DELETE.INFERFLUX_DLQ", {"seq": 99}),
        ("$JS.API.DIRECT.GET.INFERFLUX_BLOBS", {"seq": 99}),
        ("$KV.models.m", {}),
        _consumer("KV_models", "reader-2", "$KV.models.>"),
        _consumer("KV_workers", "reader-3", "$KV.workers.>"),
    ],
    Role.WORKER: [
        (f"{_JOURNAL}.run", {}),
        (f"{_JOURNAL}.ev", {}),
        ("inferflux.live.e1.r1", {}),
        ("inferflux.dlq.echo.r1", {}),
        ("inferflux.evt.r1.started", {}),
        ("$JS.API.INFO", {}),
        (_NEXT, {"batch": 1, "no_wait": True}),
        ("$JS.API.CONSUMER.INFO.INFERFLUX_REQUESTS.echo-high-0", {}),
        (_ACK, {}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_TOKENS", {"seq": 99}),
        ("$JS.API.DIRECT.GET.INFERFLUX_TOKENS", {"seq": 99}),
        ("$JS.API.DIRECT.GET.INFERFLUX_BLOBS", {"seq": 99}),
        ("$KV.workers.w1", {}),
        _consumer("KV_models", "reader-4", "$KV.models.>"),
    ],
    Role.INSPECTOR: [
        ("$JS.API.INFO", {}),
        ("$JS.API.STREAM.NAMES", {}),
        ("$JS.API.STREAM.LIST", {}),
        ("$JS.API.STREAM.INFO.INFERFLUX_REQUESTS", {}),
        ("$JS.API.CONSUMER.NAMES.INFERFLUX_REQUESTS", {}),
        ("$JS.API.CONSUMER.LIST.INFERFLUX_REQUESTS", {}),
        ("$JS.API.CONSUMER.INFO.INFERFLUX_REQUESTS.echo-high-0", {}),
    ],
    Role.INSPECTOR_FULL: [
        ("$JS.API.STREAM.LIST", {}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_REQUESTS", {"seq": 99}),
        ("$JS.API.DIRECT.GET.INFERFLUX_TOKENS", {"seq": 99}),
    ],
    Role.TOPOLOGY: [("$JS.API.STREAM.INFO.INFERFLUX_REQUESTS", {}), ("$KV.models.m", {}), (_ACK, {})],
}

# role: what it must not be able to do
_FORBIDDEN: dict[Role, list[tuple[str, Any]]] = {
    Role.EDGE: [
        (f"{_JOURNAL}.ev", {}),  # forge tokens
        ("inferflux.live.e2.r1", {}),
        ("inferflux.dlq.echo.r1", {}),
        (_NEXT, {"batch": 1, "no_wait": True}),  # take requests
        ("$JS.API.STREAM.DELETE.INFERFLUX_REQUESTS", {}),
        ("$JS.API.STREAM.PURGE.INFERFLUX_REQUESTS", {}),
        ("$JS.API.STREAM.PURGE.INFERFLUX_DLQ", {}),
        ("$JS.API.STREAM.UPDATE.INFERFLUX_TOKENS", {}),
        ("$JS.API.STREAM.CREATE.X", {"name": "X", "subjects": ["x"]}),
        _consumer("INFERFLUX_REQUESTS", "mine", _REQUEST),
        ("$JS.API.CONSUMER.DELETE.INFERFLUX_REQUESTS.echo-high-0", {}),
        ("$KV.workers.w1", {}),
        ("$JS.ACK.INFERFLUX_TOKENS.x.1.1.1.1.0", {}),
        ("_INBOX_worker.x", {}),
    ],
    Role.WORKER: [
        (_REQUEST, {}),
        (f"{_JOURNAL}.head", {}),
        ("inferflux.blob.b1.0", {}),
        ("inferflux.ctl.cancel.r1", {}),
        ("inferflux.ctl.worker.w2", {}),
        ("inferflux.heard.abc.1", {}),
        ("$KV.models.m", {}),
        ("$JS.API.STREAM.INFO.INFERFLUX_REQUESTS", {}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_REQUESTS", {"seq": 1}),
        ("$JS.API.STREAM.MSG.DELETE.INFERFLUX_DLQ", {"seq": 1}),
        ("$JS.API.STREAM.PURGE.INFERFLUX_TOKENS", {}),
        ("$JS.API.STREAM.DELETE.INFERFLUX_TOKENS", {}),
        _consumer("INFERFLUX_REQUESTS", "mine", _REQUEST),
        _consumer("INFERFLUX_TOKENS", "mine", "inferflux.tok.>"),
        _consumer("KV_workers", "mine", "$KV.workers.>"),
        ("_INBOX_edge.x", {}),
    ],
    Role.INSPECTOR: [
        (_REQUEST, {}),
        (f"{_JOURNAL}.run", {}),
        (_ACK, {}),
        ("$KV.models.m", {}),
        ("inferflux.ctl.cancel.r1", {}),
        ("inferflux.evt.r1.x", {}),
        ("$JS.API.STREAM.MSG.GET.INFERFLUX_REQUESTS", {"seq": 1}),
        ("$JS.API.DIRECT.GET.INFERFLUX_TOKENS", {"seq": 1}),
        _consumer("INFERFLUX_TOKENS", "mine", "inferflux.tok.>"),
        ("$JS.API.STREAM.DELETE.INFERFLUX_TOKENS", {}),
    ],
    Role.INSPECTOR_FULL: [
        (_REQUEST, {}),
        (f"{_JOURNAL}.run", {}),
        ("$JS.API.STREAM.PURGE.INFERFLUX_TOKENS", {}),
        ("$JS.API.STREAM.MSG.DELETE.INFERFLUX_DLQ", {"seq": 1}),
        _consumer("INFERFLUX_TOKENS", "mine", "inferflux.tok.>"),
        ("inferflux.ctl.cancel.r1", {}),
    ],
    Role.TOPOLOGY: [
        (_REQUEST, {}),
        (f"{_JOURNAL}.run", {}),
        ("$JS.ACK.INFERFLUX_TOKENS.x.1.1.1.1.0", {}),
        ("inferflux.ctl.cancel.r1", {}),
    ],
}

_MAY_LISTEN: dict[Role, list[str]] = {
    Role.TOPOLOGY: [],
    Role.EDGE: ["inferflux.ctl.edge.e1", "inferflux.live.e1.*"],
    Role.WORKER: ["inferflux.ctl.cancel.*", "inferflux.ctl.worker.w1", "inferflux.heard.abc.*"],
    Role.INSPECTOR: ["inferflux.evt.>", "$JS.EVENT.ADVISORY.>"],
    Role.INSPECTOR_FULL: ["inferflux.evt.>", "inferflux.req.>", "inferflux.tok.>", "inferflux.dlq.>"],
}
_MAY_NOT_LISTEN = [">", "inferflux.>", "inferflux.ctl.>", "$JS.API.>", "$KV.>", "_INBOX.>"]


@pytest.mark.parametrize("role", _ALLOWED)
async def test_a_role_may_do_its_work(broker: Broker, role: Role) -> None:
    connection = await broker.server.connect(role)
    for subject, body in _ALLOWED[role]:
        # Whatever comes of it, it was let through.
        await connection.publish(subject, json.dumps(body).encode(), reply=f"{inbox_prefix(role)}.answer")
        await connection.flush()
        assert connection.num_refused == 0, subject


@pytest.mark.parametrize("role", _ALLOWED)
async def test_a_role_may_do_nothing_else(broker: Broker, role: Role) -> None:
    connection = await broker.server.connect(role)
    for subject, body in _FORBIDDEN[role]:
        with pytest.raises(Refused):
            await connection.request(subject, json.dumps(body).encode(), 5)


@pytest.mark.parametrize("role", _ALLOWED)
async def test_a_role_hears_only_what_is_meant_for_it(broker: Broker, role: Role) -> None:
    connection = await broker.server.connect(role)
    others = [f"{inbox_prefix(other)}.>" for other in _ALLOWED if other is not role]
    for subject in _MAY_LISTEN[role]:
        assert await _is_heard(connection, subject), subject
    for subject in [*_MAY_NOT_LISTEN, *others]:
        assert not await _is_heard(connection, subject), subject


async def _is_heard(connection: Connection, subject: str) -> bool:
    """Whether the server takes a subscription; it refuses by an error that comes before the answer to a ping."""
    refused = connection.num_refused

    async def ignore(message: Any) -> None:
        pass

    await connection.subscribe(subject, ignore)
    return connection.num_refused == refused


async def test_a_worker_may_answer_an_edge(broker: Broker) -> None:
    async def answer(message: Any) -> None:
        await broker.worker.publish(message.reply, b"ok")

    await broker.worker.subscribe("inferflux.ctl.worker.w1", answer)
    assert (await broker.edge.request("inferflux.ctl.worker.w1", b"ping", 30)).data == b"ok"


async def test_nobody_answers_for_a_dead_worker_while_an_inspector_looks_on(broker: Broker) -> None:
    inspector = await broker.server.connect(Role.INSPECTOR_FULL)
    assert not await _is_heard(inspector, "inferflux.ctl.worker.*")
    with pytest.raises(NoResponders):
        await broker.edge.request("inferflux.ctl.worker.w1", b"ping", 30)


async def test_nobody_listens_for_a_dead_edge_while_an_inspector_looks_on(broker: Broker) -> None:
    inspector = await broker.server.connect(Role.INSPECTOR_FULL)
    assert not await _is_heard(inspector, "inferflux.live.*.*")
    with pytest.raises(NoResponders):
        await broker.worker.ask_edge("inferflux.live.e1.r1", b"", 30)


def test_inboxes_are_the_roles_own() -> None:
    assert permissions(Role.EDGE).subscribe[0] == "_INBOX_edge.>"
    assert len({inbox_prefix(*user) for user in FIXED_USERS}) == len(FIXED_USERS)
    # A tenant may be called as it likes.
    assert not {inbox_prefix(Role.BATCH, role) for role in Role} & {inbox_prefix(*user) for user in FIXED_USERS}
