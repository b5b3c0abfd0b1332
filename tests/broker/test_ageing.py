"""Nobody waits for ever behind a higher class. The rule on a clock of its own, then with a real queue."""

import asyncio
from collections.abc import Callable

import pytest

from broker.ageing import AGE_S, LOOK_EVERY_S, ClassAges, Turn
from broker.lease import Lease
from broker.pull import PullLoop
from broker.work_queue import WorkQueue
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.support.requests import make_request

HIGH, NORMAL, LOW, BATCH = PriorityClass
IN_ORDER = [Turn(name, None) for name in ("high", "normal", "low", "batch")]


class Ages(ClassAges):
    """One consumer for each class, looked at by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("time.monotonic", lambda: 0.0)
        super().__init__({priority.value: priority for priority in reversed(PriorityClass)})
        monkeypatch.undo()

    def look(self, name: str, now: float, num_unsettled: int = 1, num_delivered: int = 7) -> None:
        self.note_look(name, now, num_unsettled=num_unsettled, num_delivered=num_delivered)


@pytest.fixture
def ages(monkeypatch: pytest.MonkeyPatch) -> Ages:
    return Ages(monkeypatch)


def test_classes_are_asked_highest_first(ages: Ages) -> None:
    assert ages.turns(1000.0) == IN_ORDER


def test_a_class_that_waits_gets_one_turn_before_the_next_and_then_before_the_one_above(ages: Ages) -> None:
    ages.look("low", 0.0)
    assert ages.turns(AGE_S - 1) == IN_ORDER
    high, normal, low, batch = IN_ORDER
    assert ages.turns(AGE_S) == [high, Turn("low", 1), normal, low, batch]
    assert ages.turns(2 * AGE_S) == [Turn("low", 1), high, normal, low, batch]
    assert ages.turns(9 * AGE_S) == [Turn("low", 1), high, normal, low, batch]


def test_once_served_the_next_one_there_begins_to_wait(ages: Ages) -> None:
    ages.look("low", 0.0)
    ages.note_served("low", 50.0)
    assert ages.turns(50.0 + AGE_S - 1) == IN_ORDER
    assert ages.turns(50.0 + AGE_S)[1] == Turn("low", 1)


def test_what_another_worker_took_counts_as_served(ages: Ages) -> None:
    ages.look("low", 0.0, num_delivered=7)
    ages.look("low", AGE_S, num_delivered=8)
    assert ages.turns(AGE_S) == IN_ORDER
    ages.look("low", 2 * AGE_S, num_delivered=8)
    assert ages.turns(2 * AGE_S)[1] == Turn("low", 1)


@pytest.mark.parametrize("empty", [lambda ages: ages.note_empty("low", 20.0), lambda ages: ages.look("low", 20.0, 0)])
def test_an_empty_class_does_not_age(ages: Ages, empty: Callable[[Ages], None]) -> None:
    ages.look("low", 0.0)
    empty(ages)
    assert ages.turns(10 * AGE_S) == IN_ORDER
    ages.look("low", 10 * AGE_S)
    assert ages.turns(11 * AGE_S - 1) == IN_ORDER


def test_a_look_is_due_where_nobody_was_asked_for_a_while(ages: Ages) -> None:
    assert ages.unseen(LOOK_EVERY_S - 1) == []
    ages.note_served("normal", LOOK_EVERY_S)
    assert sorted(ages.unseen(LOOK_EVERY_S)) == ["batch", "low"]
    ages.look("low", LOOK_EVERY_S)
    ages.note_unknown("batch", LOOK_EVERY_S)
    assert ages.unseen(LOOK_EVERY_S + 1) == []


@pytest.mark.nats
async def test_a_stream_of_higher_requests_does_not_starve_a_lower_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place, and a normal request for every one that ends: strictly by class, the low one would never start."""
    monkeypatch.setattr("broker.ageing.AGE_S", 0.2)
    monkeypatch.setattr("broker.ageing.LOOK_EVERY_S", 0.02)
    queue = WorkQueue(broker.edge)
    taken: list[Lease] = []
    news = asyncio.Event()

    def take(lease: Lease) -> None:
        taken.append(lease)
        news.set()

    pull = PullLoop(broker.worker, "echo", worker_id="w1", on_lease=take, credit=lambda: int(not news.is_set()))
    await queue.submit(make_request("low", priority=LOW))
    for number in range(3):
        await queue.submit(make_request(f"normal{number}"))
    await pull.start()
    num_ended = 0
    # On a busy machine another may have been taken behind it before this looks.
    while LOW not in (classes := [lease.priority for lease in taken]):
        await news.wait()
        for lease in taken[num_ended:]:
            number, num_ended = number + 1, num_ended + 1
            await queue.submit(make_request(f"normal{number}"))
            await lease.ack()
        news.clear()
        pull.wake()
        await asyncio.sleep(0.005)
    assert classes.index(LOW) >= 5
    await pull.stop()


@pytest.mark.nats
async def test_a_full_worker_takes_what_may_have_a_place_of_anothers(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    taken: list[str] = []
    news = asyncio.Event()

    def take(lease: Lease) -> None:
        taken.append(lease.ref().request_id)
        news.set()

    def places(priority: PriorityClass) -> int:
        return 2 - len(taken) if priority is HIGH else 0

    pull = PullLoop(broker.worker, "echo", worker_id="w1", on_lease=take, credit=lambda: 0, places=places)
    await pull.start()
    for priority in (LOW, NORMAL, HIGH):
        for number in range(3):
            await queue.submit(make_request(f"{priority}{number}", priority=priority))
    while len(taken) < 2:
        news.clear()
        await news.wait()
    await asyncio.sleep(0.1)  # several times as long as it takes to ask again
    assert taken == ["high0", "high1"]
    assert pull.surplus == 0
    await pull.stop()
