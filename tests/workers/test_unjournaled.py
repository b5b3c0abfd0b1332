"""What a worker does with a request that is not journaled. Real broker, real engine."""

from collections.abc import AsyncIterator

import pytest

from broker import live_link
from broker.journal import JournalView
from broker.records import read_records
from broker.subjects import STREAM_TOKENS, journal
from schemas.codec import decode_event
from schemas.events import Cancelled, Delta, Event, Failed, Finished, Released, Started
from tests.conftest import Broker
from tests.support.waiting import until
from tests.workers.harness import EDGE, EdgeSide, edge_side, end_of, intake, tokens

pytestmark = pytest.mark.nats


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[EdgeSide]:
    async with edge_side(broker) as side:
        yield side


async def pair(edge: EdgeSide) -> tuple[JournalView, JournalView]:
    """The same request twice, journaled and not: what befalls both must not show in either."""
    return await edge.submit(edge.request()), await edge.submit(edge.request(journaled=False))


async def events(broker: Broker, request_id: str) -> list[Event]:
    records = await read_records(broker.worker, STREAM_TOKENS, journal(EDGE, request_id).all, is_complete=bool)
    return [decode_event(record.payload) for record in records]


async def test_the_text_is_that_of_a_journaled_request(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker) as worker:
        other, view = await pair(edge)
        assert await end_of(view) == await end_of(other) != ""
        await edge.queue_is_empty()
        await until(lambda: worker.credit == worker.slots)
    found = await events(broker, "r1")
    assert not any(isinstance(event, Delta) for event in found)
    finished = found[-1]
    assert isinstance(finished, Finished)
    assert (finished.token_ids, finished.pieces, finished.usage.completion_tokens) == ([], [], 60)


async def test_a_drained_worker_hands_back_and_the_next_one_goes_on(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, "w1"):
        other, view = await pair(edge)
        await tokens(view, 10)
    assert view.fold.terminal is None
    text = view.fold.text()
    async with intake(broker, "w2"):
        assert await end_of(view) == await end_of(other)
        await edge.queue_is_empty()
    assert view.fold.text().startswith(text)
    found = await events(broker, "r1")
    assert [event.worker for event in found if isinstance(event, Started)] == ["w1", "w2"]
    assert any(isinstance(event, Released) for event in found)


async def test_a_worker_that_lost_its_request_falls_silent(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, "w1") as first:
        other, view = await pair(edge)
        await tokens(view, 5)
        started = view.fold.started
        assert started is not None
        async with intake(broker, "w2") as second:
            await edge.queue.hand_back(started.ack_subject)  # w1 is believed dead, and is not
            assert await end_of(view) == await end_of(other)
            await edge.queue_is_empty()
            await until(lambda: first.credit == first.slots and second.credit == second.slots)
    assert sum(isinstance(event, Finished) for event in await events(broker, "r1")) == 1


async def test_the_broker_is_restarted_in_mid_sentence(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker):
        views = [*await pair(edge), *await pair(edge)]
        for view in views:
            await tokens(view, 5)
        await broker.server.restart()
        assert len({await end_of(view) for view in views}) == 1
        assert [view.fold.length for view in views] == [60] * 4
        await edge.queue_is_empty()


async def test_another_models_text_is_not_continued(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, "w1"):
        view = await edge.submit(edge.request(journaled=False))
        await tokens(view, 5)
    length = view.fold.length
    async with intake(broker, "other", source="echo:repeat"):
        while view.fold.started is None or view.fold.started.worker != "other":
            await view.changed(view.fold.length, None)
        while view.fold.started is not None:
            await view.changed(view.fold.length, None)
    assert (view.fold.length, view.fold.terminal) == (length, None)


async def test_the_client_leaves_in_mid_sentence(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker) as worker:
        request = edge.request(max_tokens=1000, journaled=False)
        view = await edge.submit(request)
        await tokens(view, 5)
        await edge.hub.end(EDGE, request.request_id, Cancelled("client_gone"))
        await edge.queue_is_empty()
        assert worker.credit == worker.slots


@pytest.mark.parametrize("is_started", [True, False])
async def test_work_for_an_edge_that_is_gone_is_ended(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch, is_started: bool
) -> None:
    monkeypatch.setattr(live_link, "GRACE_S", 0.2)
    request = edge.request(max_tokens=1000, journaled=False)
    view = await edge.submit(request)
    if not is_started:
        await edge.hub.close()
    async with intake(broker) as worker:
        if is_started:
            await tokens(view, 5)
            await edge.hub.close()
        await edge.queue_is_empty()
        await until(lambda: worker.credit == worker.slots)
    failed = (await events(broker, request.request_id))[-1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("broker_unavailable", True)
