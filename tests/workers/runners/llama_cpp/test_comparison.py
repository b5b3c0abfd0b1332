"""When another value is taken instead of the default."""

from collections.abc import Iterator
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runners.llama_cpp.comparison import MARGIN, Comparison, Ending, compare

SECONDS = st.floats(1e-4, 10.0)


class Clock:
    """What is left of `room_s`, after so many seconds for each measurement."""

    def __init__(self, room_s: float, cost_s: float = 0.0) -> None:
        self._room_s = room_s
        self._cost_s = cost_s
        self.measured: list[int] = []

    def room_s(self) -> float:
        return self._room_s - self._cost_s * len(self.measured)


def compared(
    times: dict[int, list[float | None]], *, room_s: float = 1e9, cost_s: float = 0.0, rounds: int = 3
) -> tuple[Comparison, list[int]]:
    """Values with what is measured of each, the default first; and what was measured."""
    clock = Clock(room_s, cost_s)
    left: dict[int, Iterator[float | None]] = {value: iter(of_rounds) for value, of_rounds in times.items()}

    def measure(value: int) -> float | None:
        clock.measured.append(value)
        return next(left[value])

    default, *others = times
    return compare(default, others, measure, clock.room_s, rounds=rounds), clock.measured


def test_values_are_measured_in_turns_and_the_fastest_is_taken() -> None:
    found, measured = compared({4: [10.0, 10.0, 10.0], 2: [8.0, 8.1, 7.9], 1: [9.0, 9.0, 9.0]})
    assert found == Comparison(Ending.MEASURED, 2, {4: 10.0, 2: 7.9, 1: 9.0})
    assert measured == [4, 2, 1] * 3


@pytest.mark.parametrize(
    "other",
    [
        [9.6, 9.6, 9.6],  # not by enough
        [5.0, 10.0, 10.0],  # once, by chance
        [9.0, 9.9, 10.5],
    ],
)
def test_the_default_stays_unless_another_is_clearly_faster(other: list[float]) -> None:
    assert compared({4: [10.0, 10.0, 10.0], 2: other})[0].chosen == 4


def test_a_round_in_which_others_had_the_processors_does_not_decide() -> None:
    assert compared({4: [10.0, 40.0, 10.0], 2: [9.8, 9.8, 9.8]})[0].chosen == 4
    assert compared({4: [10.0, 10.0, 10.0], 2: [8.0, 40.0, 8.0]})[0].chosen == 2


def test_what_is_clearly_slower_is_not_measured_again() -> None:
    found, measured = compared({4: [10.0] * 3, 2: [20.0], 1: [9.0] * 3})
    assert measured == [4, 2, 1, 4, 1, 4, 1]
    assert found.chosen == 1
    assert compared({4: [10.0], 2: [20.0]})[1] == [4, 2]


def test_without_others_nothing_is_measured() -> None:
    assert compared({4: []}) == (Comparison(Ending.MEASURED, 4, {}), [])


def test_a_measurement_that_had_to_stop_ends_it() -> None:
    found, measured = compared({4: [10.0, 10.0], 2: [5.0, None]})
    assert found == Comparison(Ending.CUT_SHORT, 4, {4: 10.0, 2: 5.0})
    assert measured == [4, 2, 4, 2]


def test_a_first_measurement_that_leaves_no_time_for_the_others_is_the_last() -> None:
    found, measured = compared({4: [10.0], 2: [1.0], 1: [1.0]}, room_s=2.9, cost_s=1.0)
    assert found == Comparison(Ending.TOO_LONG, 4, {4: 10.0})
    assert measured == [4]


def test_rounds_that_there_is_no_time_for_are_not_begun() -> None:
    found, measured = compared({4: [10.0] * 3, 2: [5.0] * 3}, room_s=5.9, cost_s=1.0)
    assert (found.ending, found.chosen, measured) == (Ending.TOO_LONG, 4, [4, 2])
    assert compared({4: [10.0] * 3, 2: [5.0] * 3}, room_s=6.0, cost_s=1.0)[0].chosen == 2


def test_the_last_measurement_may_use_up_the_time() -> None:
    rooms = iter([10.0, 9.0, 9.0, 9.0, -1.0])
    found = compare(4, [2], float, lambda: next(rooms), rounds=1)
    assert (found.ending, found.chosen) == (Ending.MEASURED, 2)


@given(default=st.lists(SECONDS, min_size=3, max_size=3), others=st.lists(st.lists(SECONDS, min_size=3, max_size=3)))
def test_nothing_is_chosen_that_is_not_faster_by_either_figure(default: list[float], others: list[list[float]]) -> None:
    times = {0: default} | dict(enumerate(others, start=1))
    found, measured = compared({value: list(of_rounds) for value, of_rounds in times.items()})
    assert found.ending is Ending.MEASURED
    if found.chosen != 0:
        assert min(times[found.chosen]) * (1 + MARGIN) < min(default)
        assert median(times[found.chosen]) * (1 + MARGIN) < median(default)
        assert measured.count(found.chosen) == 3


@given(
    times=st.lists(st.lists(SECONDS, min_size=3, max_size=3), min_size=1, max_size=5),
    room_s=st.floats(0, 20),
    cost_s=st.floats(0.1, 5),
)
def test_no_more_time_is_spent_than_there_is_but_for_the_first(
    times: list[list[float]], room_s: float, cost_s: float
) -> None:
    found, measured = compared(dict(enumerate([list(of) for of in times])), room_s=room_s, cost_s=cost_s)
    assert len(measured) <= 1 or len(measured) * cost_s <= room_s + 1e-9
    assert found.chosen == 0 or found.ending is Ending.MEASURED
