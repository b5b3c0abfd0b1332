import asyncio

import pytest

from broker.edge_waiting import NotWaitingTokens, WaitingTokens, announce_waiting, listen_for_waiting, parse_waiting
from broker.errors import Refused
from broker.roles import Role
from schemas.requests import PriorityClass
from tests.conftest import Broker

pytestmark = pytest.mark.nats


async def test_edges_hear_what_others_have_waiting(broker: Broker) -> None:
    heard: asyncio.Queue[tuple[str, WaitingTokens]] = asyncio.Queue()
    other = await broker.server.connect(Role.EDGE, "other")
    listening = await listen_for_waiting(other, lambda *news: heard.put_nowait(news))
    tokens = {("org/model.x", PriorityClass.NORMAL): 12, ("org/model.x", PriorityClass.LOW): 3}
    await announce_waiting(broker.edge, "e1", tokens)
    await announce_waiting(broker.edge, "e1", {})
    assert await heard.get() == ("e1", tokens)
    assert await heard.get() == ("e1", {})
    await broker.edge.publish("inferflux.ctl.edge.waiting.e2", b"nonsense")
    await announce_waiting(broker.edge, "e3", {})
    assert await heard.get() == ("e3", {})
    await listening.close()


async def test_only_edges_may_listen(broker: Broker) -> None:
    before = broker.worker.num_refused
    await listen_for_waiting(broker.worker, lambda *news: None)
    assert broker.worker.num_refused > before
    with pytest.raises((Refused, ValueError)):
        await announce_waiting(broker.worker, "not valid!", {})


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"x"',
        b"null",
        b'{"m": 5}',
        b'{"m": {"normal": -1}}',
        b'{"m": {"normal": 1.5}}',
        b'{"m": {"normal": true}}',
        b'{"m": {"normal": 1e999}}',
        b'{"m": {"normal": 999999999999999999999}}',
        b'{"m": {"urgent": 1}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_announcement_is_told_apart(payload: bytes) -> None:
    with pytest.raises(NotWaitingTokens):
        parse_waiting(payload)
