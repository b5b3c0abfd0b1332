"""Several edges on one broker in simulated time: messages take as long as a test says, and arrive in that order."""

import heapq
import types
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any


@dataclass
class _Sent:
    """A message on its way: `act` happens at the broker, and its result comes back. A `line` keeps its order."""

    act: Callable[[], Any]
    line: "SimulatedRow | None" = None


@dataclass
class _Slept:
    seconds: float


@types.coroutine
def _ask(what: _Sent | _Slept) -> Generator[_Sent | _Slept, Any, Any]:
    return (yield what)


class Simulation:
    """`delay` gives the seconds of each way, one after the other."""

    def __init__(self, delay: Callable[[], float], start: float = 1_000_000.0) -> None:
        self.now = start
        self._delay = delay
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.totals: dict[int, int] = {}
        self.lowest = 0

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), act))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self._go_on(work, None)

    async def pause(self, seconds: float) -> None:
        await _ask(_Slept(seconds))

    def run(self) -> None:
        while self._agenda:
            self.now, _, act = heapq.heappop(self._agenda)
            act()

    def clock(self, skew_s: float = 0.0) -> Callable[[], float]:
        return lambda: self.now + skew_s

    def _go_on(self, work: Coroutine[Any, Any, None], answer: Any) -> None:
        try:
            sent: _Sent | _Slept = work.send(answer)
        except StopIteration:
            return
        if isinstance(sent, _Slept):
            self.at(self.now + max(sent.seconds, 0.0), lambda: self._go_on(work, None))
            return

        def arrive() -> None:
            answer = sent.act()
            self.at(self.now + self._delay(), lambda: self._go_on(work, answer))

        arrives_at = self.now + self._delay()
        if sent.line is not None:
            arrives_at = sent.line.last_at = max(sent.line.last_at, arrives_at)
        self.at(arrives_at, arrive)

    def change(self, changes: Mapping[int, int]) -> dict[int, int]:
        for number, amount in changes.items():
            self.totals[number] = self.totals.get(number, 0) + amount
            self.lowest = min(self.lowest, self.totals[number])
        return {number: self.totals[number] for number in changes}


class SimulatedRow:
    """`in_order`: one for each edge, as if over one connection."""

    def __init__(self, simulation: Simulation, *, in_order: bool = False) -> None:
        self._simulation = simulation
        self._line = self if in_order else None
        self.last_at = 0.0

    async def add(self, changes: Mapping[int, int]) -> dict[int, int]:
        copied = dict(changes)
        totals: dict[int, int] = await _ask(_Sent(lambda: self._simulation.change(copied), self._line))
        return totals

    async def look(self, numbers: Collection[int]) -> dict[int, int]:
        wanted = list(numbers)
        totals: dict[int, int] = await _ask(
            _Sent(lambda: {number: self._simulation.totals.get(number, 0) for number in wanted})
        )
        return totals
