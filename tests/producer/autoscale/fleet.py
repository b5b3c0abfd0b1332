"""A queue with workers that take their time to start, in virtual time, and somebody who does what the hint says."""

import heapq
import random
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from producer.autoscale.facts import ClassFacts, Facts
from producer.autoscale.scaler import Hint, Scaler
from producer.config import AutoscaleConfig
from schemas.requests import PriorityClass

_EVERY_S = 5.0
_NORMAL = PriorityClass.NORMAL


class Seen(NamedTuple):
    at: float
    hint: Hint
    waiting: int


class Fleet:
    """Arrivals are a Poisson stream with `rate(at)`, service times exponential; both come from `seed`.

    Without a worker calls are refused, unless `queues`. A worker that is taken away finishes what it runs.
    """

    def __init__(
        self,
        config: AutoscaleConfig,
        rate: Callable[[float], float],
        *,
        service_s: float = 2.0,
        slots: int = 4,
        start_s: float = 30.0,
        workers: int = 1,
        queues: bool = True,
        seed: int = 1,
    ) -> None:
        self._random = random.Random(seed)
        self._rate, self._service_s, self._slots, self._start_s = rate, service_s, slots, start_s
        self._queues = queues
        self.scalers = [Scaler(config)]
        self.workers = workers
        self.at = 0.0
        self.history: list[Seen] = []
        self.num_served = 0
        self._starting: list[float] = []
        self._waiting: list[float] = []
        self._ends: list[float] = []
        self._refused: list[float] = []
        self._delivered = 0
        self._next_arrival: float | None = None

    def run(self, seconds: float) -> None:
        """Go on for so long, looking every five seconds."""
        until = self.at + seconds
        while self.at < until:
            self._advance(self.at + _EVERY_S)
            facts = self.facts()
            hints = [scaler.observe(facts) for scaler in self.scalers]
            self.history.append(Seen(self.at, hints[0], len(self._waiting)))
            self._scale(max(hint.desired for hint in hints))

    @property
    def desired(self) -> int:
        return self.history[-1].hint.desired

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def num_turns(self, since: float = 0.0) -> int:
        """How often the hint changed its direction."""
        numbers = [seen.hint.desired for seen in self.history if seen.at > since]
        steps = [later - sooner for sooner, later in pairwise(numbers) if later != sooner]
        return sum(1 for one, next_one in pairwise(steps) if (one > 0) != (next_one > 0))

    def facts(self) -> Facts:
        oldest = self.at - self._waiting[0] if self._waiting else 0.0
        normal = ClassFacts(len(self._waiting), len(self._ends), self._delivered, oldest)
        self._refused = [at for at in self._refused if at > self.at - 60]
        return Facts(
            self.at,
            {_NORMAL: normal},
            refused=len(self._refused),
            workers=self.workers,
            slots=self.workers * self._slots,
        )

    def _scale(self, desired: int) -> None:
        missing = desired - self.workers - len(self._starting)
        if missing > 0:
            self._starting += [self.at + self._start_s] * missing
            return
        for _ in range(-missing):
            if self._starting:
                self._starting.pop()
            else:
                self.workers -= 1
        self._serve()

    def _advance(self, until: float) -> None:
        """Arrivals, ends and starts of workers in their order."""
        while True:
            arrival = self._arrival(until)
            moments = [arrival, self._ends[0] if self._ends else None, min(self._starting, default=None)]
            upcoming = min((moment for moment in moments if moment is not None), default=until)
            self.at = min(upcoming, until)
            if upcoming >= until:
                return
            if upcoming == moments[2]:
                self._starting.remove(upcoming)
                self.workers += 1
            elif upcoming == moments[1]:
                heapq.heappop(self._ends)
                self.num_served += 1
            else:
                self._next_arrival = None
                self._arrive()
            self._serve()

    def _arrival(self, until: float) -> float | None:
        if self._next_arrival is None:
            rate = self._rate(self.at)
            self._next_arrival = self.at + self._random.expovariate(rate) if rate > 0 else None
        return self._next_arrival

    def _arrive(self) -> None:
        if self.workers or self._queues:
            self._waiting.append(self.at)
        else:
            self._refused.append(self.at)

    def _serve(self) -> None:
        while self._waiting and len(self._ends) < self.workers * self._slots:
            self._waiting.pop(0)
            self._delivered += 1
            heapq.heappush(self._ends, self.at + self._random.expovariate(1 / self._service_s))
