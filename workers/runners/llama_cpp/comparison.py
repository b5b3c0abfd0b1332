"""Whether another value is faster than the default, by measurements in turns: A B C A B C ..."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from statistics import median
from typing import NamedTuple

# Two runs on one machine differ by as much.
MARGIN = 0.05

# Seconds by value, one for each round that it was in.
Times = dict[int, list[float]]


class Ending(StrEnum):
    """`TOO_LONG`: those made so far show that there is no time for all rounds. `CUT_SHORT`: a measurement had to stop;
    at another time it may not.
    """

    MEASURED = "measured"
    TOO_LONG = "too long"
    CUT_SHORT = "cut short"


class Comparison(NamedTuple):
    """`chosen` is the default unless the ending is MEASURED. `fastest_s`: the shortest time of each value measured."""

    ending: Ending
    chosen: int
    fastest_s: dict[int, float]


def compare(
    default: int,
    others: Sequence[int],
    measure: Callable[[int], float | None],
    room_s: Callable[[], float],
    *,
    rounds: int,
) -> Comparison:
    """Measure every value so many times, and choose.

    `measure` says a value's seconds, of whatever they are, or None when it had to stop; `room_s` how many seconds are
    left for all this. A value that is clearly slower than the default is in no further round.
    """
    times: Times = {}
    costs: dict[int, float] = {}
    values = [default, *others]
    for rounds_left in reversed(range(rounds if others else 0)):
        for value in values:
            before_s = room_s()
            seconds = measure(value)
            if seconds is None:
                return Comparison(Ending.CUT_SHORT, default, _fastest(times))
            times.setdefault(value, []).append(seconds)
            costs[value] = before_s - room_s()
            if len(costs) == 1 and costs[default] * len(others) > room_s():
                return Comparison(Ending.TOO_LONG, default, _fastest(times))
        values = [default, *(value for value in values[1:] if not _is_faster(times, default, value))]
        if len(values) == 1:
            break
        if rounds_left and rounds_left * sum(costs[value] for value in values) > room_s():
            return Comparison(Ending.TOO_LONG, default, _fastest(times))
    return Comparison(Ending.MEASURED, choose(values, times), _fastest(times))


def choose(values: Sequence[int], times: Times) -> int:
    """The fastest by its best round of those that are faster than the first one, the default; else that one."""
    default, *others = values
    faster = [value for value in others if _is_faster(times, value, default)]
    return min(faster, key=lambda value: min(times[value]), default=default)


def _is_faster(times: Times, one: int, other: int) -> bool:
    """By more than MARGIN, both at its best and as a rule: chance favours either figure at times, seldom both."""
    return all(of(times[one]) * (1 + MARGIN) < of(times[other]) for of in (min, median))


def _fastest(times: Times) -> dict[int, float]:
    return {value: min(of_rounds) for value, of_rounds in times.items()}
