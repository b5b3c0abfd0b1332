"""The queue of a model as this edge can know it: what the broker says, and what was submitted since it was asked."""

import asyncio
import math
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from broker.work_queue import Look
from producer.edge.retry_after import Line
from producer.edge.waiting import SETTLED_S, Waiting
from schemas.requests import PriorityClass

# Those who are about to be refused share their looks: so many a second at most.
_GRID_S = 0.025


class LookAt(Protocol):
    async def __call__(self, model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look: ...


class ClassState(NamedTuple):
    """Requests of one class. What was submitted a moment ago counts as waiting, although some of it may run by now."""

    waiting: int
    running: int


class QueueView:
    """Answers are as of the call that gives them: nothing awaits between `state` and what is decided by it."""

    def __init__(self, look: LookAt, waiting: Waiting) -> None:
        self._look = look
        self._waiting = waiting

    async def glance(self, line: Line) -> Look:
        """As the broker saw a class at most a quarter of a second ago."""
        return await self._look(line.model, line.priority)

    async def look_again(self, model: str) -> Mapping[PriorityClass, Look]:
        """As the broker sees all classes now. It takes a few hundredths of a second: what has been submitted by the
        time of the call is in it for sure.
        """
        asked_after = time.monotonic() + SETTLED_S
        await asyncio.sleep(math.ceil(asked_after / _GRID_S) * _GRID_S - time.monotonic())
        # The timer may be early by its resolution.
        asked_after = min(asked_after, time.monotonic())
        looks = await asyncio.gather(*(self._look(model, each, asked_after=asked_after) for each in PriorityClass))
        return dict(zip(PriorityClass, looks, strict=True))

    def state(self, line: Line, look: Look) -> ClassState:
        unseen = self._waiting.num_unseen(line, look.asked_at)
        return ClassState(look.depth.waiting + unseen, look.depth.running)
