"""Turns under any order of events: never too many at once, and nothing stays behind."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from broker.work_queue import Look, QueueDepth
from producer.edge.batch.turns import MAX_WAITING, Turn, Turns
from schemas.requests import PriorityClass

STEPS = st.lists(st.tuples(st.sampled_from(["take", "start", "end", "cancel"]), st.integers(0, 7)), max_size=40)


async def _idle(model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
    return Look(asyncio.get_running_loop().time(), QueueDepth(0, 0), 0, 0)


async def _play(num_slots: int, steps: list[tuple[str, int]]) -> None:
    turns = Turns(_idle, lambda _: False, lambda _: num_slots)
    takes: list[asyncio.Task[Turn]] = []
    running: list[Turn] = []
    for step, number in steps:
        waiting = [take for take in takes if take.done()]
        match step:
            case "take":
                takes.append(asyncio.create_task(turns.take("m", 1)))
            case "start" if waiting:
                turn = waiting[number % len(waiting)]
                takes.remove(turn)
                running.append(turn.result())
                running[-1].started()
            case "end" if running:
                running.pop(number % len(running)).ended()
            case "cancel" if takes and not takes[number % len(takes)].done():
                take = takes.pop(number % len(takes))
                take.cancel()
                await asyncio.gather(take, return_exceptions=True)
        for _ in range(10):
            await asyncio.sleep(0)
        num_given = sum(take.done() for take in takes)
        assert num_given <= turns.num_waiting("m") <= max(MAX_WAITING, num_slots)
        if not len(takes) - num_given:
            assert turns.num_waiting("m") == num_given
    for turn in running:
        turn.ended()
    for take in takes:
        (await take).ended()
    assert turns.num_waiting("m") == 0


@given(st.integers(0, 4), STEPS)
def test_never_too_many_and_nobody_is_forgotten(num_slots: int, steps: list[tuple[str, int]]) -> None:
    asyncio.run(_play(num_slots, steps))
