"""When lines of a model may begin: only while nothing waits that should come before them.

How much of this edge's own waits is known here at once; of the rest of the fleet, as the broker, or the other edges,
said it a quarter of a second ago. Classes are strict in the queue, so a line that slips in before a call of a higher
class waits behind it.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.work_queue import Look
from producer.edge.queue_view import LookAt
from schemas.errors import ServingError
from schemas.requests import PriorityClass

_LOOK_S = 0.25
# How soon to try again when a call of ours was about to begin.
_GLANCE_S = 0.025
# So many may wait in the queue when nothing is free, so that a place that frees up is taken at once.
MAX_WAITING = 2


class Turn:
    """A line that may begin; `num` requests. Whoever takes one calls `started` when it waits no longer, and `ended`."""

    def __init__(self, line: "_ModelLine", num: int) -> None:
        self._line = line
        self._num = num
        self._waits = True
        self._runs = True
        line.num_waiting += num

    def started(self) -> None:
        if self._waits:
            self._waits = False
            self._line.num_waiting -= self._num
            self._line.num_running += self._num
            self._line.changed.set()

    def ended(self) -> None:
        self.started()
        if self._runs:
            self._runs = False
            self._line.num_running -= self._num
            self._line.changed.set()


@dataclass(eq=False)
class _ModelLine:
    """Lines of one model in this edge: those that want to begin, those begun and waiting in the queue, and running.

    `seen_waiting` and `seen_running` are what the latter were when the broker was asked for `looks`.
    """

    wanting: deque[tuple[asyncio.Future[Turn], int]] = field(default_factory=deque)
    num_waiting: int = 0
    num_running: int = 0
    looks: dict[PriorityClass, Look] = field(default_factory=dict)
    looked_at: float = -1e9
    seen_waiting: int = 0
    seen_running: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    pump: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        return not self.wanting and self.num_waiting == 0 and self.num_running == 0


class Turns:
    """First come, first served for each model.

    `is_wanted(model)`: whether calls of higher classes wait as far as this edge has heard; `num_slots` is the fleet's.
    """

    def __init__(self, look: LookAt, is_wanted: Callable[[str], bool], num_slots: Callable[[str], int]) -> None:
        self._look = look
        self._is_wanted = is_wanted
        self._num_slots = num_slots
        self._lines: dict[str, _ModelLine] = {}

    async def take(self, model: str, num: int) -> Turn:
        """Wait until a line of `num` requests may begin."""
        line = self._lines.setdefault(model, _ModelLine())
        if not line.wanting and self._is_fresh(line) and self._may_begin(model, line, num):
            return Turn(line, num)
        turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        line.wanting.append((turn, num))
        if line.pump is None or line.pump.done():
            line.pump = asyncio.create_task(self._pump(model, line), name=f"turns {model}")
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                turn.result().ended()
            raise
        finally:
            line.changed.set()

    def num_waiting(self, model: str) -> int:
        """Requests of this edge's lines that wait in the queue."""
        line = self._lines.get(model)
        return 0 if line is None else line.num_waiting

    async def _pump(self, model: str, line: _ModelLine) -> None:
        """Give turns out while somebody wants one."""
        while line.wanting:
            line.changed.clear()
            if time.monotonic() - line.looked_at >= _LOOK_S:
                with contextlib.suppress(ServingError):
                    await self._look_at(model, line)
            self._give(model, line)
            if line.wanting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GLANCE_S if self._is_wanted(model) else _LOOK_S):
                        await line.changed.wait()
        for idle in [name for name, each in self._lines.items() if each is not line and each.is_idle]:
            del self._lines[idle]

    def _give(self, model: str, line: _ModelLine) -> None:
        while line.wanting:
            turn, num = line.wanting[0]
            if not turn.done():
                if not (self._is_fresh(line) and self._may_begin(model, line, num)):
                    return
                turn.set_result(Turn(line, num))
            line.wanting.popleft()

    def _is_fresh(self, line: _ModelLine) -> bool:
        return time.monotonic() - line.looked_at < 2 * _LOOK_S

    async def _look_at(self, model: str, line: _ModelLine) -> None:
        """Raises ServingError."""
        waiting, running = line.num_waiting, line.num_running
        looks = await asyncio.gather(*(self._look(model, each) for each in PriorityClass))
        line.looks = dict(zip(PriorityClass, looks, strict=True))
        line.looked_at = min(look.asked_at for look in looks)
        line.seen_waiting, line.seen_running = waiting, running

    def _may_begin(self, model: str, line: _ModelLine, num: int) -> bool:
        depths = {each: look.depth for each, look in line.looks.items()}
        if any(depth.waiting for each, depth in depths.items() if each is not PriorityClass.BATCH):
            return False
        if self._is_wanted(model):
            return False
        num_slots = self._num_slots(model)
        others_wait = depths[PriorityClass.BATCH].waiting - line.seen_waiting
        others_run = max(sum(depth.running for depth in depths.values()) - line.seen_running, 0)
        if others_wait > max(MAX_WAITING, num_slots):
            return False
        num_free = num_slots - others_run - line.num_running
        # One that is larger than all there may be begins alone: else it never could.
        return line.num_waiting == 0 or line.num_waiting + num <= max(MAX_WAITING, num_free)
