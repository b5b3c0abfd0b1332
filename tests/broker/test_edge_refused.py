import asyncio

import pytest

from broker.edge_refused import Refused, announce_refused, listen_for_refused, parse_refused
from broker.roles import Role
from tests.conftest import Broker


@pytest.mark.nats
async def test_edges_hear_whom_others_refused(broker: Broker) -> None:
    heard: asyncio.Queue[tuple[str, Refused]] = asyncio.Queue()
    other = await broker.server.connect(Role.EDGE, "other")
    listening = await listen_for_refused(other, lambda *news: heard.put_nowait(news))
    await announce_refused(broker.edge, "e1", {"org/model.x": 7})
    assert await heard.get() == ("e1", {"org/model.x": 7})
    await broker.edge.publish("inferflux.ctl.edge.refused.e2", b"nonsense")
    await announce_refused(broker.edge, "e3", {})
    assert await heard.get() == ("e3", {})
    await listening.close()


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b'{"m": -1}', b'{"m": 1.5}', b'{"m": true}', b'{"m": {}}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_announcement_is_told_apart(payload: bytes) -> None:
    with pytest.raises(ValueError):
        parse_refused(payload)
