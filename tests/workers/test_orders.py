"""What a worker does on an order. Real broker, real engine, asked as an edge asks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from broker.worker_control import WorkerControl, serve_control
from schemas.errors import ErrorCode, ServingError
from schemas.events import Finished
from schemas.requests import ChatMessage, TextPrompt
from schemas.worker_orders import (
    ClearCache,
    Cleared,
    Cordon,
    Describe,
    DrainOrder,
    Order,
    WarmCache,
    Warmed,
    WorkerStatus,
)
from tests.conftest import Broker
from tests.support.waiting import until
from tests.workers.harness import EdgeSide, edge_side, end_of, intake, tokens
from workers.intake import Intake
from workers.orders import Orders

pytestmark = pytest.mark.nats

TEXT = "a text that is long enough to be worth keeping"


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[EdgeSide]:
    async with edge_side(broker) as side:
        yield side


class Worker:
    """An intake under orders. `left` and `announced` say what the worker would have done."""

    def __init__(self, broker: Broker, intake: Intake) -> None:
        self.intake = intake
        self.left = asyncio.Event()
        self.num_announced = 0
        self.orders = Orders(lambda: [intake], is_supervised=True, leave=self.left.set, announce=self._announce)
        self._control = WorkerControl(broker.edge)

    async def status(self) -> WorkerStatus:
        return await self._control.order("w1", Describe(), WorkerStatus, 30)

    async def cordon(self, *, on: bool) -> WorkerStatus:
        return await self._control.order("w1", Cordon(on=on), WorkerStatus, 30)

    async def drain(self, order: DrainOrder) -> WorkerStatus:
        return await self._control.order("w1", order, WorkerStatus, 30)

    async def clear(self, order: ClearCache) -> Cleared:
        return await self._control.order("w1", order, Cleared, 30)

    async def warm(self, order: WarmCache) -> Warmed:
        return await self._control.order("w1", order, Warmed, 30)

    async def _announce(self) -> None:
        self.num_announced += 1


@contextlib.asynccontextmanager
async def worker(broker: Broker, source: str = "echo:random?rate=40") -> AsyncIterator[Worker]:
    async with intake(broker, source=source) as made:
        worker = Worker(broker, made)

        async def ignore() -> None: ...

        listening = await serve_control(broker.worker, "w1", ignore, made.in_hand, worker.orders.obey)
        yield worker
        await listening.close()


async def test_a_cordoned_worker_finishes_what_it_has_and_takes_nothing_new(broker: Broker, edge: EdgeSide) -> None:
    async with worker(broker) as one:
        running = await edge.submit(edge.request(max_tokens=1000))
        await tokens(running, 1)
        before = await one.status()
        assert (before.cordoned, before.supervised, len(before.requests)) == (False, True, 1)
        assert (before.models[0].busy, before.models[0].free) == (1, one.intake.slots - 1)
        assert (await one.cordon(on=True)).cordoned
        assert one.num_announced == 1
        waiting = await edge.submit(edge.request("later", max_tokens=2))
        length = running.fold.length
        await tokens(running, length + 5)
        assert waiting.fold.started is None
        status = await one.status()
        assert (status.cordoned, status.models[0].free, status.requests) == (True, 0, before.requests)
        await one.cordon(on=False)
        await end_of(waiting)
        assert isinstance(waiting.fold.terminal, Finished)


async def test_a_worker_that_finishes_leaves_once_nothing_is_in_hand(broker: Broker, edge: EdgeSide) -> None:
    async with worker(broker) as one:
        running = await edge.submit(edge.request(max_tokens=20))
        await tokens(running, 1)
        status = await one.drain(DrainOrder(mode="finish"))
        assert (status.draining, len(status.requests), one.left.is_set()) == (True, 1, False)
        await end_of(running)
        await until(lambda: one.orders.has_finished)
        waiting = await edge.submit(edge.request(max_tokens=2))
        assert (await one.cordon(on=False)).draining
        assert waiting.fold.started is None
        await one.drain(DrainOrder(mode="hand_back"))
        assert one.left.is_set()


async def test_a_warmed_prompt_serves_the_next_request(broker: Broker, edge: EdgeSide) -> None:
    async with worker(broker, "echo:random") as one:
        order = WarmCache(model="echo", text=TEXT)
        warmed = await one.warm(order)
        assert (warmed.prompt_tokens >= len(TEXT), warmed.cached_tokens) == (True, 0)
        assert (await one.warm(order)).cached_tokens == warmed.prompt_tokens - 1
        view = await edge.submit(edge.request(prompt=TextPrompt(f"{TEXT} and more"), max_tokens=2))
        await end_of(view)
        assert isinstance(view.fold.terminal, Finished)
        assert view.fold.terminal.usage.cached_tokens >= len(TEXT)
        cache = (await one.status()).models[0].cache
        assert (cache.cached_tokens > len(TEXT), cache.hits, cache.misses, cache.evictions) == (True, 2, 1, 0)
        freed = await one.clear(ClearCache())
        assert freed.models[0].tokens == cache.cached_tokens
        assert (await one.status()).models[0].cache.cached_tokens == 0
        assert (await one.clear(ClearCache(model="echo"))).models[0].entries == 0
        assert (await one.warm(WarmCache(model="echo", messages=(ChatMessage("system", TEXT),)))).prompt_tokens > 0


async def test_what_runs_keeps_its_kv_when_the_cache_is_cleared(broker: Broker, edge: EdgeSide) -> None:
    async with worker(broker) as one:
        running = await edge.submit(edge.request(max_tokens=30))
        await tokens(running, 1)
        assert (await one.clear(ClearCache())).models[0].tokens == 0
        await end_of(running)
        assert running.fold.length == 30


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (WarmCache(model="absent", text="x"), ErrorCode.MODEL_NOT_FOUND),
        (ClearCache(model="absent"), ErrorCode.MODEL_NOT_FOUND),
        (WarmCache(model="echo", text="x" * 100_000), ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    ],
    ids=["warm", "clear", "long"],
)
async def test_an_order_that_cannot_be_obeyed_is_refused(broker: Broker, order: Order, code: ErrorCode) -> None:
    async with worker(broker) as one:
        with pytest.raises(ServingError) as refused:
            await (one.warm(order) if isinstance(order, WarmCache) else one.clear(ClearCache(model="absent")))
        assert refused.value.code is code


async def test_bytes_that_are_no_order_are_refused_and_the_worker_lives(broker: Broker) -> None:
    async with worker(broker) as one:
        for payload in (b"{", b'{"op": "explode"}', b'{"op": "cordon", "on": "maybe"}', b"{" * 10_000):
            answer = await broker.edge.request("inferflux.ctl.worker.w1", payload, 30)
            assert b"invalid_parameter" in answer.data
        assert not (await one.status()).cordoned
