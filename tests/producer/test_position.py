"""Where a call is in the queue, and when its turn comes, as its stream's comments say."""

import time

import pytest

from broker.work_queue import Look, QueueDepth
from producer.edge.calls import Call
from producer.edge.position import Position, position_of
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass
from tests.producer.hand_fed import HandFedView, make_call


class Queue:
    """Waiting requests and deliveries by class."""

    def __init__(self) -> None:
        self.waiting = dict.fromkeys(PriorityClass, 0)
        self.delivered = dict.fromkeys(PriorityClass, 0)
        self.is_away = False

    async def look(self, model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        if self.is_away:
            raise ServingError(ErrorCode.BROKER_UNAVAILABLE, "away")
        return Look(time.monotonic(), QueueDepth(self.waiting[priority], 0), self.delivered[priority], 0)

    def deliver(self, priority: PriorityClass) -> None:
        self.waiting[priority] -= 1
        self.delivered[priority] += 1

    async def position_of(self, call: Call) -> Position:
        return await position_of(call, self.look)


NORMAL, HIGH, LOW = PriorityClass.NORMAL, PriorityClass.HIGH, PriorityClass.LOW


async def test_those_who_come_later_are_behind() -> None:
    queue, call = Queue(), make_call(HandFedView())
    queue.delivered[NORMAL] = 100
    queue.waiting[NORMAL] = 4
    assert await queue.position_of(call) == Position(4, 0)
    queue.waiting[NORMAL] += 10
    assert await queue.position_of(call) == Position(4, 0)
    queue.deliver(NORMAL)
    assert await queue.position_of(call) == Position(3, 0)
    for _ in range(5):
        queue.deliver(NORMAL)
    assert await queue.position_of(call) == Position(1, 0)


async def test_higher_classes_are_ahead_and_lower_ones_are_not() -> None:
    queue, call = Queue(), make_call(HandFedView())
    queue.waiting |= {HIGH: 2, NORMAL: 3, LOW: 50}
    assert await queue.position_of(call) == Position(3, 2)
    queue.waiting[HIGH] = 7
    position = await queue.position_of(call)
    assert (position, position.overall) == (Position(3, 7), 10)


async def test_those_who_leave_the_queue_move_it_on() -> None:
    queue, call = Queue(), make_call(HandFedView())
    queue.waiting[NORMAL] = 9
    await queue.position_of(call)
    queue.waiting[NORMAL] = 2
    assert await queue.position_of(call) == Position(2, 0)


async def test_a_call_with_several_prompts_is_where_its_first_one_is() -> None:
    queue, call = Queue(), make_call(HandFedView(), HandFedView(), HandFedView())
    queue.waiting[NORMAL] = 5
    assert await queue.position_of(call) == Position(3, 0)


@pytest.mark.parametrize("was_known", [True, False])
async def test_without_a_broker_nothing_moves(was_known: bool) -> None:
    queue, call = Queue(), make_call(HandFedView())
    queue.waiting[NORMAL] = 5
    if was_known:
        await queue.position_of(call)
    queue.is_away = True
    assert await queue.position_of(call) == Position(5 if was_known else 1, 0)
