import asyncio
import json

import pytest
from nats.aio.msg import Msg

from broker.errors import NoResponders
from broker.roles import Role
from broker.transitions import Transitions
from broker.worker_control import WorkerControl, serve_control, subscribe_cancels
from tests.conftest import Broker
from tests.support.waiting import until

pytestmark = pytest.mark.nats

# For an answer that has to come: one that is late counts as one of a worker that lives.
PATIENCE_S = 30


async def _ignore() -> None:
    pass


async def _nothing() -> set[int]:
    return set()


async def test_a_worker_is_alive_while_it_listens(broker: Broker) -> None:
    control = WorkerControl(broker.edge)
    assert not await control.is_alive("w1", PATIENCE_S)
    listening = await serve_control(broker.worker, "w1", _ignore, _nothing)
    assert await control.is_alive("w1", PATIENCE_S)
    assert not await control.is_alive("w2", PATIENCE_S)
    await listening.close()
    await broker.worker.flush()
    assert not await control.is_alive("w1", PATIENCE_S)


async def test_a_worker_whose_process_is_gone_is_not_alive(broker: Broker) -> None:
    dying = await broker.server.connect(Role.WORKER)
    listening = await serve_control(dying, "w1", _ignore, _nothing)
    await dying.close()
    await listening.close()
    control = WorkerControl(broker.edge)

    async def is_gone() -> bool:
        return not await control.is_alive("w1", PATIENCE_S)

    await until(is_gone)


async def test_slow_and_unreachable_count_as_alive(broker: Broker) -> None:
    async def say_nothing(message: Msg) -> None:
        pass

    await broker.worker.subscribe("inferflux.ctl.worker.w1", say_nothing)
    control = WorkerControl(broker.edge)
    assert await control.is_alive("w1", 0.01)
    await broker.server.kill()
    assert await control.is_alive("w2", 0.01)


async def test_a_worker_can_be_asked_to_drain(broker: Broker) -> None:
    asked = asyncio.Event()

    async def on_drain() -> None:
        asked.set()

    await serve_control(broker.worker, "w1", on_drain, _nothing)
    control = WorkerControl(broker.edge)
    assert await control.drain("w1", PATIENCE_S)
    assert asked.is_set()
    assert not await control.drain("w2", PATIENCE_S)


async def test_a_worker_says_what_it_has_in_hand(broker: Broker) -> None:
    async def in_hand() -> set[int]:
        return {3, 15, 8}

    await serve_control(broker.worker, "w1", _ignore, in_hand)
    control = WorkerControl(broker.edge)
    assert await control.held("w1", [1, 15, 3, 30], PATIENCE_S) == {3, 15}
    assert await control.held("w1", [1], PATIENCE_S) == set()
    with pytest.raises(NoResponders):
        await control.held("w2", [1], PATIENCE_S)


async def test_unknown_control_messages_are_not_answered(broker: Broker) -> None:
    await serve_control(broker.worker, "w1", _ignore, _nothing)
    await broker.edge.publish("inferflux.ctl.worker.w1", b"format the disk")
    assert await WorkerControl(broker.edge).is_alive("w1", PATIENCE_S)


async def test_cancels_reach_every_worker_and_bad_ids_none(broker: Broker) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await subscribe_cancels(broker.worker, heard.put_nowait)
    other = await broker.server.connect(Role.WORKER)
    await subscribe_cancels(other, heard.put_nowait)
    await broker.edge.publish("inferflux.ctl.cancel.=zz", b"")
    await broker.edge.publish("inferflux.ctl.cancel.r1", b"")
    assert [await heard.get(), await heard.get()] == ["r1", "r1"]


async def test_transitions_are_one_json_line_each(broker: Broker) -> None:
    inspector = await broker.server.connect(Role.INSPECTOR)
    lines: asyncio.Queue[Msg] = asyncio.Queue()
    await inspector.subscribe("inferflux.evt.>", lines.put)
    Transitions(broker.edge, "e1").note("r1", "accepted", prompt_tokens=3)
    message = await lines.get()
    assert message.subject == "inferflux.evt.r1.accepted"
    line = json.loads(message.data)
    assert line.pop("time") > 1_700_000_000
    assert line == {"request_id": "r1", "event": "accepted", "source": "e1", "prompt_tokens": 3}
    assert b"\n" not in message.data
