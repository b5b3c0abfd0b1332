"""Which deliveries nobody has: every worker is asked, and none is taken for dead because it is slow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from nats.aio.msg import Msg

from broker.connection import Connection
from broker.holders import Holders
from broker.registry import Presence, Registry
from broker.roles import Role
from broker.worker_control import Listening, WorkerControl, serve_control
from schemas.control import ServedModel, WorkerAdvert
from tests.conftest import Broker
from tests.support.waiting import until

pytestmark = pytest.mark.nats


@pytest.fixture
async def registry(broker: Broker) -> AsyncIterator[Registry]:
    registry = Registry(broker.edge)
    await registry.start()
    yield registry
    await registry.close()


@pytest.fixture
def holders(broker: Broker, registry: Registry) -> Holders:
    return Holders(registry, WorkerControl(broker.edge))


def _holding(*seqs: int) -> Callable[[], Awaitable[set[int]]]:
    async def in_hand() -> set[int]:
        return set(seqs)

    return in_hand


async def _ignore() -> None:
    pass


class _Worker:
    """A worker as the others see it: an entry in the registry, and answers."""

    def __init__(self, connection: Connection, worker_id: str, model: str = "echo") -> None:
        served = ServedModel(
            id=model,
            backend="echo",
            reason="asked for",
            fingerprint="f",
            context=100,
            slots=2,
            max_token_bytes=4,
            bytes_per_token=2.0,
            has_chat_template=True,
        )
        self._advert = WorkerAdvert(id=worker_id, host="h", pid=1, version="0", models=(served,), free_slots=2)
        self._connection = connection
        self.presence = Presence(connection, lambda: self._advert)

    async def start(self, registry: Registry, *seqs: int) -> Listening:
        listening = await serve_control(self._connection, self._advert.id, _ignore, _holding(*seqs))
        await self.announce(registry)
        return listening

    async def announce(self, registry: Registry) -> None:
        await self.presence.start()
        await until(lambda: self._advert.id in registry.workers)

    async def withdraw(self, registry: Registry) -> None:
        await self.presence.withdraw()
        await until(lambda: self._advert.id not in registry.workers)


async def test_what_no_worker_has_in_hand_is_unheld(broker: Broker, registry: Registry, holders: Holders) -> None:
    for worker_id, seq in (("w1", 3), ("w2", 5)):
        await _Worker(broker.worker, worker_id).start(registry, seq, 9)
    assert await holders.unheld("echo", [3, 4, 5, 6]) == {4, 6}


async def test_a_dead_worker_has_nothing(broker: Broker, registry: Registry, holders: Holders) -> None:
    dying = await broker.server.connect(Role.WORKER)
    await _Worker(dying, "w1").start(registry, 3)
    await _Worker(broker.worker, "w2").start(registry)
    assert await holders.unheld("echo", [3]) == set()
    await dying.close()

    async def is_unheld() -> bool:
        return await holders.unheld("echo", [3]) == {3}

    await until(is_unheld)
    assert "w1" in registry.workers  # its entry has not run out


async def test_a_worker_that_does_not_say_may_have_it(broker: Broker, registry: Registry, holders: Holders) -> None:
    asked = asyncio.Event()

    async def say_nothing(message: Msg) -> None:
        asked.set()

    await broker.worker.subscribe("inferflux.ctl.worker.w1", say_nothing)
    await _Worker(broker.worker, "w1").announce(registry)
    await _Worker(broker.worker, "w2").start(registry)
    assert await holders.unheld("echo", [3]) == set()
    assert asked.is_set()
    # It serves another model's queue all the while.
    assert await holders.unheld("other", [3]) == {3}


async def test_a_worker_that_leaves_is_asked_until_it_has_left(
    broker: Broker, registry: Registry, holders: Holders
) -> None:
    worker = _Worker(broker.worker, "w1")
    listening = await worker.start(registry, 3)
    await worker.withdraw(registry)
    assert await holders.unheld("echo", [3, 4]) == {4}
    await listening.close()
    await broker.worker.flush()
    assert await holders.unheld("echo", [3, 4]) == {3, 4}
    assert not holders._left
