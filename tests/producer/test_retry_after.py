"""`Retry-After` is honest: who comes back when told mostly gets in. A simulated fleet, by its own clock."""

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from producer.edge.rates import ServiceRates
from producer.edge.retry_after import LONGEST_S, Line, RetryAfter
from schemas.requests import PriorityClass

LINE = Line("m", PriorityClass.NORMAL)


def make(slots: int, service_s: float, clock: Callable[[], float], num_edges: int = 1) -> RetryAfter:
    rates = ServiceRates(lambda model: slots, clock=clock)
    rates.note("m", service_s)
    return RetryAfter(rates, lambda line: num_edges, clock)


def test_each_refusal_gets_the_place_behind_the_last_one() -> None:
    now = [0.0]
    told = make(8, 2.0, lambda: now[0])
    waits = [told.seconds(LINE) for _ in range(4)]
    assert waits == pytest.approx([1 / 3, 2 / 3, 1.0, 4 / 3])
    # The line moves with the time, whether anybody comes back or not.
    now[0] += 1.0
    assert told.seconds(LINE) == pytest.approx(2 / 3)
    now[0] += 60.0
    assert told.seconds(LINE, missing=8) == pytest.approx(2.0)


def test_what_is_larger_moves_the_line_more_and_edges_share_it() -> None:
    alone, shared = make(8, 2.0, lambda: 0.0), make(8, 2.0, lambda: 0.0, num_edges=2)
    assert alone.seconds(LINE, asked=3) == pytest.approx(1.0)
    assert shared.seconds(LINE, asked=3) == pytest.approx(2.0)


def test_no_more_come_back_in_one_second_than_the_queue_holds() -> None:
    told = make(1000, 1.0, lambda: 0.0)
    waits = Counter(math.ceil(told.seconds(LINE, at_once=4)) for _ in range(20))
    assert waits == {1: 4, 2: 4, 3: 4, 4: 4, 5: 4}


def test_a_line_to_which_nobody_comes_begins_anew() -> None:
    now = [0.0]
    told = make(8, 2.0, lambda: now[0])
    places = [told.seconds(LINE) for _ in range(300)]
    assert places[-1] == pytest.approx(100.0)
    # Somebody comes within every few turns: the line holds.
    for _ in range(5):
        now[0] += 3.0
        told.note_arrival(LINE)
    assert told.seconds(LINE) == pytest.approx(100.0 + 1 / 3 - 15.0)
    # Nobody comes, although a dozen were told to.
    now[0] += 4.0
    told.note_arrival(LINE)
    assert told.seconds(LINE) == pytest.approx(1 / 3)


def test_nobody_is_told_more_than_the_sdks_wait() -> None:
    told = make(1, 10.0, lambda: 0.0)
    assert max(told.seconds(LINE, missing=5) for _ in range(100)) <= LONGEST_S == 120.0


class Fleet:
    """Slots, one queue for each class, and clients who want one answer each and do as they are told."""

    def __init__(self, *, slots: int, service_s: float, queue_max: int, num_edges: int = 1, seed: int = 1) -> None:
        self.now = 0.0
        self.returns: Counter[bool] = Counter()
        self.longest_told = 0
        self._slots, self._service_s, self._queue_max = slots, service_s, queue_max
        self._random = random.Random(seed)
        self._started: list[float] = []
        self._rates = [ServiceRates(lambda model: slots, self._ages, lambda: self.now) for _ in range(num_edges)]
        self._told = [RetryAfter(rates, lambda line: num_edges, lambda: self.now) for rates in self._rates]
        self._queues: dict[PriorityClass, deque[int]] = {priority: deque() for priority in PriorityClass}
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, len(self._events) + self._random.getrandbits(40), event))

    def steady(self, per_s: float, until_s: float, classes: Sequence[PriorityClass]) -> None:
        time_s = 0.0
        while (time_s := time_s + self._random.expovariate(per_s)) < until_s:
            self._arrival(time_s, classes)

    def burst(self, at_s: float, number: int, classes: Sequence[PriorityClass]) -> None:
        for _ in range(number):
            self._arrival(at_s + self._random.random() * 0.05, classes)

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] < until_s:
            self.now, _, event = heapq.heappop(self._events)
            event()

    def _arrival(self, time_s: float, classes: Sequence[PriorityClass]) -> None:
        priority = self._random.choice(classes)
        self.at(time_s, lambda: self._ask(priority, is_back=False))

    def _ask(self, priority: PriorityClass, *, is_back: bool) -> None:
        edge = self._random.randrange(len(self._told))
        self._told[edge].note_arrival(Line("m", priority))
        others = sum(len(queue) for each, queue in self._queues.items() if each is not priority)
        free = max(self._slots - len(self._started) - others, 0)
        excess = len(self._queues[priority]) + 1 - self._queue_max - free
        if is_back:
            self.returns[excess <= 0] += 1
        if excess <= 0:
            self._queues[priority].append(edge)
            self._start()
            return
        above = sum(len(queue) for each, queue in self._queues.items() if each.rank < priority.rank)
        seconds = self._told[edge].seconds(Line("m", priority), missing=excess, above=above, at_once=self._queue_max)
        told = max(1, math.ceil(seconds))
        self.longest_told = max(self.longest_told, told)
        self.at(self.now + told + self._random.random() * 0.02, lambda: self._ask(priority, is_back=True))

    def _start(self) -> None:
        for priority, queue in self._queues.items():
            while queue and len(self._started) < self._slots:
                edge = queue.popleft()
                self._started.append(self.now)
                self._rates[edge].note_start("m", priority)
                service_s = self._random.expovariate(1 / self._service_s)
                self.at(self.now + service_s, partial(self._end, edge, self.now, service_s))

    def _end(self, edge: int, started_at: float, service_s: float) -> None:
        self._started.remove(started_at)
        self._rates[edge].note("m", service_s)
        self._start()

    def _ages(self, model: str) -> list[float]:
        return [self.now - started_at for started_at in self._started]


ALL = (PriorityClass.HIGH, PriorityClass.NORMAL, PriorityClass.LOW)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("load", "classes", "num_edges"),
    [(0.5, ALL[1:2], 1), (0.75, ALL[1:2], 1), (0.5, ALL[1:2], 2), (0.5, ALL, 1)],
    ids=["half load", "three quarters", "two edges", "three classes"],
)
def test_after_a_burst_clients_who_come_back_when_told_mostly_get_in(
    load: float, classes: Sequence[PriorityClass], num_edges: int, seed: int
) -> None:
    fleet = Fleet(slots=8, service_s=0.2, queue_max=16, num_edges=num_edges, seed=seed)
    fleet.steady(load * 8 / 0.2, 120, classes)
    # Five seconds' worth of the whole fleet, at once.
    fleet.burst(30, 200, classes)
    fleet.run(150)
    assert sum(fleet.returns.values()) > 50
    assert fleet.returns[True] / sum(fleet.returns.values()) > 0.7
    assert fleet.longest_told <= LONGEST_S


def test_before_anything_has_ended_the_guess_does_not_send_all_back_at_once() -> None:
    fleet = Fleet(slots=4, service_s=4.0, queue_max=8)
    fleet.burst(0, 50, ALL[1:2])
    fleet.run(600)
    assert fleet.returns[True] == 50 - 4 - 8
    # The first guess is a fourth of the truth here, and what ends first is what was short.
    assert sum(fleet.returns.values()) < 3 * fleet.returns[True]
