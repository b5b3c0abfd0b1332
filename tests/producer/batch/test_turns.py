"""Who goes first: tenants take turns, and everybody else goes before all of them."""

import asyncio
from typing import Any

import pytest

from broker.records import read_records
from broker.subjects import STREAM_RESULTS
from broker.work_queue import Look, QueueDepth
from producer.edge.batch.turns import MAX_WAITING, Turn, Turns
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.producer.batch.draining import draining, results_of
from tests.producer.conftest import CONFIG, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker, echo
from tests.support.batches import batch_line, batch_publisher
from tests.support.counts import full_or
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def _publish(publisher: Any, job: str, number: int) -> None:
    for start in range(0, number, 100):
        lines = range(start, min(start + 100, number))
        await asyncio.gather(*(publisher.publish(batch_line(job, index, "one")) for index in lines))


async def test_a_few_lines_do_not_wait_for_the_many_of_another_tenant(broker: Broker, worker: ScriptedWorker) -> None:
    many, few = full_or(20_000, reduced=2_000), 20
    async with batch_publisher(broker, "acme") as acme, batch_publisher(broker, "other") as other:
        await _publish(acme, "large", many)
        await _publish(other, "small", few)
        async with draining(broker):
            results = await results_of(broker, "small", few, "other")
    assert {result.status_code for result in results.values()} == {200}
    records = await read_records(broker.edge, STREAM_RESULTS, "inferflux.result.>", is_complete=lambda _: True)
    tenants = [record.subject.split(".")[2] for record in records]
    last = max(place for place, tenant in enumerate(tenants) if tenant == "other")
    # One by one, but for those that were on their way at the same time.
    assert tenants[:last].count("acme") < 10 * few


async def test_who_waits_for_an_answer_goes_before_lines_that_are_not_begun(broker: Broker) -> None:
    turn, unsettled = asyncio.Semaphore(0), []

    async def num_unsettled(priority: str) -> int:
        """Those that wait, and the one that runs."""
        info = await broker.edge.api(f"CONSUMER.INFO.INFERFLUX_REQUESTS.echo-{priority}-0")
        return int(info["num_pending"] + info["num_ack_pending"])

    async def one_by_one(run: Run) -> None:
        unsettled.append(await num_unsettled("batch"))
        await turn.acquire()
        await echo(run)

    async def are_unsettled(priority: str, number: int) -> bool:
        return await num_unsettled(priority) == number

    await put_model(broker)
    async with (
        running_worker(broker.worker, one_by_one, slots=1) as worker,
        batch_publisher(broker, "acme") as acme,
        running_edge(broker, CONFIG) as edge,
    ):
        await until_served(edge)
        await _publish(acme, "j1", 50)
        await until(lambda: are_unsettled("batch", MAX_WAITING + 1))
        asked = asyncio.create_task(edge.post(chat("first of all")))
        await until(lambda: are_unsettled("normal", 1))
        assert len(worker.runs) == 1
        for _ in range(51):
            turn.release()
        assert (await asked).status_code == 200
        await results_of(broker, "j1", 50)
    assert [str(run.request.priority) for run in worker.runs] == ["batch", "normal", *["batch"] * 49]
    assert max(unsettled) <= MAX_WAITING + 1


class _Fleet:
    """A queue that says what a test wants."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.is_wanted = False
        self.depths = {each: QueueDepth(0, 0) for each in PriorityClass}

    async def look(self, model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        return Look(asyncio.get_running_loop().time(), self.depths[priority], 0, 0)

    def turns(self) -> Turns:
        return Turns(self.look, lambda model: self.is_wanted, lambda model: self.num_slots)


async def _take_all(turns: Turns, number: int, num_given: int = 0) -> list[asyncio.Task[Turn]]:
    """As many as can be had at once are done."""
    takes = [asyncio.create_task(turns.take("m", 1)) for _ in range(number)]
    await until(lambda: sum(take.done() for take in takes) >= num_given)
    for _ in range(20):  # what would be given too much would be by then
        await asyncio.sleep(0)
    return takes


async def test_as_many_begin_as_places_are_free_and_two_more_when_none_is() -> None:
    fleet = _Fleet(num_slots=4)
    turns = fleet.turns()
    takes = await _take_all(turns, 10, num_given=4)
    begun = [take.result() for take in takes if take.done()]
    assert len(begun) == turns.num_waiting("m") == 4
    for turn in begun:
        turn.started()
    await until(lambda: sum(take.done() for take in takes) == 6)
    assert turns.num_waiting("m") == MAX_WAITING
    begun[0].ended()
    takes[4].result().started()
    await until(lambda: sum(take.done() for take in takes) == 7)
    for take in takes[7:]:
        take.cancel()
    await asyncio.gather(*takes[7:], return_exceptions=True)
    for take in takes[:7]:
        take.result().ended()
    assert turns.num_waiting("m") == 0


@pytest.mark.parametrize("waiting", [PriorityClass.HIGH, PriorityClass.NORMAL, PriorityClass.LOW])
async def test_nothing_begins_while_a_higher_class_waits(waiting: PriorityClass) -> None:
    fleet = _Fleet(num_slots=4)
    fleet.depths[waiting] = QueueDepth(1, 4)
    (take,) = await _take_all(fleet.turns(), 1)
    assert not take.done()
    fleet.depths[waiting] = QueueDepth(0, 3)
    (await take).ended()


async def test_nothing_begins_while_a_call_of_this_edge_is_about_to() -> None:
    fleet = _Fleet(num_slots=4)
    fleet.is_wanted = True
    (take,) = await _take_all(fleet.turns(), 1)
    assert not take.done()
    fleet.is_wanted = False
    (await take).ended()


async def test_lines_of_other_edges_that_wait_are_enough() -> None:
    fleet = _Fleet(num_slots=1)
    fleet.depths[PriorityClass.BATCH] = QueueDepth(MAX_WAITING + 1, 1)
    (take,) = await _take_all(fleet.turns(), 1)
    assert not take.done()
    fleet.depths[PriorityClass.BATCH] = QueueDepth(0, 1)
    (await take).ended()


async def test_a_call_larger_than_all_places_begins_alone() -> None:
    turns = _Fleet(num_slots=2).turns()
    large = await turns.take("m", 64)
    (take,) = await _take_all(turns, 1)
    assert not take.done()
    large.ended()
    (await take).ended()


async def test_whoever_gives_up_leaves_no_trace() -> None:
    fleet = _Fleet(num_slots=0)
    turns = fleet.turns()
    takes = await _take_all(turns, 5)
    for take in takes:
        take.cancel()
    await asyncio.gather(*takes, return_exceptions=True)
    for take in takes:
        if not take.cancelled():
            take.result().ended()
    assert turns.num_waiting("m") == 0
