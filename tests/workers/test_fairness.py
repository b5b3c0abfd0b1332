"""A full worker takes what may have a place of another's, and nothing else. Real broker, real engine."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.subjects import STREAM_REQUESTS
from schemas.events import Cancelled, Finished
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.support.waiting import until
from tests.workers.harness import EDGE, EdgeSide, edge_side, end_of, intake, tokens
from workers.engine.config import FairnessConfig

HIGH, NORMAL, LOW, BATCH = PriorityClass
SOURCE = "echo:random?rate=100"
PREEMPTING = FairnessConfig(enable_preemption=True)


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[EdgeSide]:
    async with edge_side(broker) as side:
        yield side


async def undisturbed(edge: EdgeSide, **changes: object) -> str:
    async with intake(edge.broker, "w0", source="echo:random"):
        return await end_of(await edge.submit(edge.request(**changes)))


async def num_queued(edge: EdgeSide, priority: PriorityClass) -> int:
    info = await edge.broker.topology.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.echo-{priority}-0")
    return int(info["num_pending"])


async def test_a_full_worker_takes_a_high_request_and_goes_on_with_the_others(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge)
    async with intake(broker, source=SOURCE, slots=2, fairness=PREEMPTING) as worker:
        lows = [await edge.submit(edge.request(priority=LOW)) for _ in range(2)]
        for low in lows:
            await tokens(low, 5)
        high = await edge.submit(edge.request(priority=HIGH, max_tokens=20))
        await end_of(high)
        assert all(low.fold.terminal is None for low in lows)
        assert [await end_of(low) for low in lows] == [expected, expected]
        await edge.queue_is_empty()
        await until(lambda: worker.credit == 2)
        worker.export_gauges()
        value = worker._metrics.registry.get_sample_value
        moved = [value(f"inferflux_fairness_{name}_total", {"model": "echo"}) for name in ("preemptions", "resumes")]
        assert moved == [1, 1]
    assert all(isinstance(low.fold.terminal, Finished) for low in lows)


async def test_without_preemption_it_stays_in_the_queue(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, source=SOURCE, slots=1) as worker:
        low = await edge.submit(edge.request(priority=LOW))
        await tokens(low, 5)
        high = await edge.submit(edge.request(priority=HIGH, max_tokens=20))
        await tokens(low, 50)
        assert (worker.places(HIGH), high.fold.length, await num_queued(edge, HIGH)) == (0, 0, 1)
        await end_of(high)
        assert low.fold.terminal is not None


@pytest.mark.parametrize("priority", [NORMAL, LOW, BATCH])
async def test_other_classes_stay_in_the_queue(broker: Broker, edge: EdgeSide, priority: PriorityClass) -> None:
    async with intake(broker, source=SOURCE, slots=1, fairness=PREEMPTING):
        batch = await edge.submit(edge.request(priority=BATCH))
        await tokens(batch, 5)
        other = await edge.submit(edge.request(priority=priority, max_tokens=20))
        await tokens(batch, 50)
        assert (other.fold.length, await num_queued(edge, priority)) == (0, 1)
        await end_of(other)


async def test_no_more_are_taken_than_can_have_a_place(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, source=SOURCE, slots=2, fairness=PREEMPTING) as worker:
        lows = [await edge.submit(edge.request(priority=LOW)) for _ in range(2)]
        for low in lows:
            await tokens(low, 5)
        highs = [await edge.submit(edge.request(priority=HIGH, max_tokens=30)) for _ in range(4)]
        await tokens(highs[0], 10)
        await tokens(highs[1], 10)
        assert (worker.places(HIGH), await num_queued(edge, HIGH)) == (0, 2)
        for view in (*highs, *lows):
            await end_of(view)
        await edge.queue_is_empty()


async def test_a_free_worker_gets_it_and_nobody_has_to_give_way(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, "w1", source=SOURCE, slots=1, fairness=PREEMPTING) as full:
        low = await edge.submit(edge.request(priority=LOW, max_tokens=200))
        await tokens(low, 5)
        async with intake(broker, "w2", source=SOURCE, slots=8, fairness=PREEMPTING):
            await asyncio.sleep(0.1)  # its pulls are open
            for _ in range(5):
                await end_of(await edge.submit(edge.request(priority=HIGH, max_tokens=5)))
        assert full._engine.stats().preemptions_total == 0


async def test_requests_of_a_class_take_turns(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge, max_tokens=100)
    async with intake(broker, source=SOURCE, slots=1, fairness=FairnessConfig(max_timeslice_tokens=10)) as worker:
        long = await edge.submit(edge.request(max_tokens=100))
        await tokens(long, 5)
        short = await edge.submit(edge.request(max_tokens=15))
        await end_of(short)
        assert long.fold.terminal is None
        assert await end_of(long) == expected
        stats = worker._engine.stats()
        assert stats.yields_total >= 2
        assert stats.resumes_total == stats.yields_total


async def test_a_parked_request_keeps_its_lease_and_is_handed_back_by_a_drain(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.session.RENEW_EVERY_S", 0.05)
    expected = await undisturbed(edge)
    renewed = []
    async with intake(broker, "w1", source=SOURCE, slots=1, fairness=PREEMPTING) as worker:
        low = await edge.submit(edge.request(priority=LOW))
        await tokens(low, 5)
        high = await edge.submit(edge.request(priority=HIGH, max_tokens=1000))
        await tokens(high, 5)
        length = low.fold.length
        [session] = [session for session in worker._sessions.values() if session.request.request_id.endswith("1")]
        save = session.save_now

        async def note() -> None:
            renewed.append(session.request.request_id)
            await save()

        monkeypatch.setattr(session, "save_now", note)
        await until(lambda: len(renewed) >= 2)
        assert low.fold.length == length
    assert low.fold.terminal is None
    async with intake(broker, "w2", source=SOURCE, slots=2):
        assert await end_of(low) == expected


async def test_a_parked_request_can_be_cancelled(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, source=SOURCE, slots=1, fairness=PREEMPTING) as worker:
        request = edge.request(priority=LOW, max_tokens=1000)
        low = await edge.submit(request)
        await tokens(low, 5)
        high = await edge.submit(edge.request(priority=HIGH, max_tokens=40))
        await tokens(high, 5)
        await edge.hub.end(EDGE, request.request_id, Cancelled("client_gone"))
        await end_of(high)
        await edge.queue_is_empty()
        await until(lambda: worker.credit == 1)
        assert worker._engine.stats().parked_bytes == 0
