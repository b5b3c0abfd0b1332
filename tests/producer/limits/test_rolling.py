from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.limits.rolling import RollingWindow, Shape, Taken
from producer.limits.store import Full
from tests.producer.limits.simulation import SimulatedRow, Simulation
from tests.producer.limits.worst_window import worst_window

SHAPE = Shape(window_s=10.0, width_s=0.5)


@dataclass
class Asked:
    """Somebody asks an edge `after` seconds for `amount`, and comes to `used` in the end, `runs_s` later."""

    after: float
    edge: int
    amount: int
    used: int
    runs_s: float


class Fleet:
    def __init__(self, limit: int, delay: Callable[[], float], skews: list[float]) -> None:
        self.simulation = Simulation(delay)
        self.limit = limit
        row = SimulatedRow(self.simulation)
        self.edges = [RollingWindow(row, SHAPE, self.simulation.clock(skew), self.simulation.pause) for skew in skews]
        self.admitted: list[tuple[float, int]] = []
        self.refused: list[Full] = []

    def ask(self, asked: Asked, *, settles: bool) -> None:
        edge, simulation = self.edges[asked.edge % len(self.edges)], self.simulation

        async def take() -> None:
            try:
                taken = await edge.take(asked.amount, self.limit)
            except Full as full:
                self.refused.append(full)
                return
            self.admitted.append((simulation.now, asked.amount))
            if settles:
                simulation.at(simulation.now + asked.runs_s, lambda: simulation.start(settle(taken)))

        async def settle(taken: Taken) -> None:
            await edge.settle(taken, asked.used)

        simulation.at(simulation.now + asked.after, lambda: simulation.start(take()))


ASKED = st.builds(
    Asked,
    after=st.one_of(
        st.floats(0, 25), st.integers(0, 50).map(lambda n: n * 0.5 - 0.002 if n else 0.0), st.sampled_from([0.0, 10.5])
    ),
    edge=st.integers(0, 2),
    amount=st.integers(1, 3),
    used=st.integers(0, 3),
    runs_s=st.floats(0, 15),
)
DELAYS = st.lists(st.sampled_from([0.0001, 0.001, 0.02, 0.06, 0.12]), min_size=1, max_size=12)
SKEWS = st.lists(st.floats(-SHAPE.skew_s / 2, SHAPE.skew_s / 2), min_size=3, max_size=3)


def _cycle(delays: list[float]) -> Callable[[], float]:
    position = 0

    def delay() -> float:
        nonlocal position
        position += 1
        return delays[position % len(delays)]

    return delay


@given(asked=st.lists(ASKED, min_size=1, max_size=60), delays=DELAYS, skews=SKEWS, limit=st.integers(3, 12))
def test_no_rolling_window_admits_more_than_the_limit(
    asked: list[Asked], delays: list[float], skews: list[float], limit: int
) -> None:
    fleet = Fleet(limit, _cycle(delays), skews)
    for each in asked:
        fleet.ask(each, settles=False)
    fleet.simulation.run()
    assert worst_window(fleet.admitted, SHAPE.window_s) <= limit
    assert len(fleet.admitted) + len(fleet.refused) == len(asked)


@given(asked=st.lists(ASKED, min_size=1, max_size=60), delays=DELAYS, skews=SKEWS, limit=st.integers(3, 12))
def test_settling_and_giving_back_never_make_a_counter_negative(
    asked: list[Asked], delays: list[float], skews: list[float], limit: int
) -> None:
    fleet = Fleet(limit, _cycle(delays), skews)
    for each in asked:
        fleet.ask(each, settles=True)
    fleet.simulation.run()
    assert fleet.simulation.lowest == 0
    # Refusals have left nothing behind: what is counted is what the admitted ones came to.
    assert all(total >= 0 for total in fleet.simulation.totals.values())


@given(delays=DELAYS, skews=SKEWS, limit=st.integers(1, 20), start=st.floats(0, 1))
def test_as_many_as_the_limit_are_admitted_at_once(
    delays: list[float], skews: list[float], limit: int, start: float
) -> None:
    fleet = Fleet(limit, _cycle(delays), skews)
    for number in range(limit):
        fleet.ask(Asked(start, number, 1, 1, 0), settles=False)
    fleet.simulation.run()
    assert len(fleet.admitted) == limit


@pytest.mark.parametrize("start", [0.0, 0.2, 0.499, 0.501])
def test_of_three_times_the_limit_at_once_just_the_limit_is_admitted(start: float) -> None:
    fleet = Fleet(20, lambda: 0.001, [0.0, 0.01, -0.01])
    for number in range(60):
        fleet.ask(Asked(start, number, 1, 1, 0), settles=False)
    fleet.simulation.run()
    assert len(fleet.admitted) == 20


def test_whoever_comes_back_when_told_is_admitted() -> None:
    fleet = Fleet(5, lambda: 0.0005, [0.0, 0.0])
    for number in range(6):
        fleet.ask(Asked(0.3, number, 1, 1, 0), settles=False)
    fleet.simulation.run()
    [full] = fleet.refused
    assert full.wait_s is not None
    assert SHAPE.window_s < full.wait_s <= SHAPE.window_s + SHAPE.width_s + SHAPE.margin_s
    fleet.ask(Asked(full.wait_s, 0, 1, 1, 0), settles=False)
    fleet.simulation.run()
    assert len(fleet.admitted) == 6


def test_what_was_reserved_too_much_is_there_for_others() -> None:
    fleet = Fleet(100, lambda: 0.0005, [0.0, 0.0])
    fleet.ask(Asked(0.0, 0, 90, 10, 2.0), settles=True)
    fleet.ask(Asked(1.0, 1, 50, 50, 0.0), settles=True)  # too early
    fleet.ask(Asked(3.0, 1, 90, 90, 0.0), settles=True)
    fleet.simulation.run()
    assert [amount for _, amount in fleet.admitted] == [90, 90]


def test_what_was_used_beyond_the_reservation_counts_too() -> None:
    fleet = Fleet(100, lambda: 0.0005, [0.0])
    fleet.ask(Asked(0.0, 0, 50, 95, 0.5), settles=True)
    fleet.ask(Asked(1.0, 0, 10, 10, 0.0), settles=True)
    fleet.simulation.run()
    assert len(fleet.admitted) == 1


def test_a_broker_that_lost_its_numbers_is_told_them_again() -> None:
    fleet = Fleet(5, lambda: 0.0005, [0.0])
    for _ in range(5):
        fleet.ask(Asked(0.0, 0, 1, 1, 0), settles=False)
    fleet.simulation.run()
    fleet.simulation.totals.clear()
    fleet.simulation.start(fleet.edges[0].count_again())
    fleet.ask(Asked(1.0, 0, 1, 1, 0), settles=False)
    fleet.simulation.run()
    assert len(fleet.admitted) == 5


def test_steady_traffic_below_the_limit_is_never_refused() -> None:
    fleet = Fleet(40, lambda: 0.0005, [0.0, 0.005])
    # A full window frees up to one bucket and the margin late: 40 in 10.75 s are let through whenever they come.
    for number in range(150):
        fleet.ask(Asked(number * 10.8 / 40, number, 1, 1, 0), settles=False)
    fleet.simulation.run()
    assert fleet.refused == []


def test_an_addition_that_arrives_after_its_bucket_was_read_does_not_count_there() -> None:
    fleet = Fleet(2, lambda: 0.2 if fleet.simulation.now < 1_000_000.6 else 0.0005, [0.0, 0.0])
    fleet.ask(Asked(0.499, 0, 1, 1, 0), settles=False)  # arrives 0.2 s after the end of its bucket
    fleet.ask(Asked(0.66, 1, 1, 1, 0), settles=False)  # has read that bucket by then, and keeps what it read
    fleet.ask(Asked(0.95, 1, 1, 1, 0), settles=False)
    fleet.simulation.run()
    assert len(fleet.admitted) == 2
