from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from producer.limits.holds import Holds
from producer.limits.store import Full
from tests.producer.limits.simulation import SimulatedRow, Simulation

LEASE_S = 3.0
ROUND_S = 1.0


@dataclass
class Asked:
    """At `after` seconds somebody asks an edge, and holds for `runs_s` if it may."""

    after: float
    edge: int
    runs_s: float


class Fleet:
    """Edges that renew every second, but for the dead ones."""

    def __init__(self, limit: int, delay: Callable[[], float], num_edges: int, lasts_s: float = 40.0) -> None:
        self.simulation = Simulation(delay)
        self.limit = limit
        self.edges = [
            Holds(SimulatedRow(self.simulation, in_order=True), LEASE_S, self.simulation.clock(0.01 * number))
            for number in range(num_edges)
        ]
        self.dead: set[int] = set()
        self.num_held = self.most_held = self.num_refused = self.num_admitted = 0
        for second in range(int(lasts_s)):
            for number in range(num_edges):
                self.simulation.at(
                    self.simulation.now + second * ROUND_S + 0.1 * number, lambda n=number: self._renew(n)
                )  # type: ignore[misc]

    def _renew(self, number: int) -> None:
        if number not in self.dead:
            self.simulation.start(self.edges[number].renew())

    def ask(self, asked: Asked) -> None:
        edge, simulation = self.edges[asked.edge % len(self.edges)], self.simulation

        async def take() -> None:
            try:
                await edge.take(1, self.limit)
            except Full:
                self.num_refused += 1
                return
            self.num_admitted += 1
            self.num_held += 1
            self.most_held = max(self.most_held, self.num_held)
            simulation.at(simulation.now + asked.runs_s, release)

        def release() -> None:
            self.num_held -= 1
            if asked.edge % len(self.edges) not in self.dead:
                simulation.start(edge.release(1))

        simulation.at(simulation.now + asked.after, lambda: simulation.start(take()))


ASKED = st.builds(
    Asked,
    after=st.one_of(st.floats(0, 20), st.integers(0, 7).map(lambda n: n * LEASE_S)),
    edge=st.integers(0, 2),
    runs_s=st.floats(0, 12),
)


@given(
    asked=st.lists(ASKED, min_size=1, max_size=40),
    delays=st.lists(st.sampled_from([0.0001, 0.02, 0.2]), min_size=1, max_size=8),
    limit=st.integers(1, 6),
)
def test_never_more_than_the_limit_at_a_time(asked: list[Asked], delays: list[float], limit: int) -> None:
    position = 0

    def delay() -> float:
        nonlocal position
        position += 1
        return delays[position % len(delays)]

    fleet = Fleet(limit, delay, 3)
    for each in asked:
        fleet.ask(each)
    fleet.simulation.run()
    assert fleet.most_held <= limit
    assert fleet.simulation.lowest == 0
    assert all(edge.held == 0 for edge in fleet.edges)


def test_as_many_as_the_limit_at_once_and_the_next_when_one_ends() -> None:
    fleet = Fleet(4, lambda: 0.0005, 2)
    for number in range(4):
        fleet.ask(Asked(1.0, number, 5.0))
    fleet.ask(Asked(2.0, 0, 1.0))  # too early
    fleet.ask(Asked(6.5, 1, 1.0))
    fleet.simulation.run()
    assert (fleet.num_admitted, fleet.num_refused) == (5, 1)


def test_what_a_dead_edge_held_comes_back_within_two_leases() -> None:
    fleet = Fleet(2, lambda: 0.0005, 2)
    fleet.ask(Asked(1.0, 0, 30.0))
    fleet.ask(Asked(1.0, 0, 30.0))
    fleet.simulation.at(fleet.simulation.now + 4.0, lambda: fleet.dead.add(0))
    fleet.ask(Asked(4.5, 1, 1.0))  # too early
    fleet.ask(Asked(4.0 + 2 * LEASE_S, 1, 1.0))
    fleet.ask(Asked(4.0 + 2 * LEASE_S, 1, 1.0))
    fleet.simulation.run()
    assert (fleet.num_admitted, fleet.num_refused) == (4, 1)


def test_what_is_held_for_long_is_carried_from_lease_to_lease() -> None:
    fleet = Fleet(1, lambda: 0.0005, 2)
    fleet.ask(Asked(0.5, 0, 30.0))
    for second in range(1, 30):
        fleet.ask(Asked(float(second), 1, 1.0))
    fleet.simulation.run()
    assert (fleet.num_admitted, fleet.num_refused) == (1, 29)
