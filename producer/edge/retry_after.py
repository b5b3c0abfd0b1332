"""When to come back: an honest `Retry-After` for calls that are refused.

Told "until a place frees", all who are refused at once would come back at once, and all but one would be refused again.
So each refusal books the next place in a line, and the line moves at the measured rate. A booking is no reservation:
whoever comes first gets in, and what nobody comes back for passes by with its time. When nobody at all has come for
several turns, those who booked have given up, and the line begins anew: else the next to be refused would be told to
wait for people who are gone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from producer.edge.rates import ServiceRates
from schemas.requests import PriorityClass

# Of the places that free up; the others go to calls that come for the first time.
_SHARE = 0.75
# The official SDKs ignore anything longer, and then come back within seconds.
LONGEST_S = 120.0
# A line is given up when so many turns, and the seconds by which a whole number of them blurs a turn, bring nobody.
_MISSED_TURNS = 4
_BLUR_S = 2.0


class Line(NamedTuple):
    """Where refused calls queue up: a class of a model."""

    model: str
    priority: PriorityClass


# Calls that are refused before anybody reads which model they want.
_DOOR = Line("", PriorityClass.NORMAL)


@dataclass(slots=True)
class _Bookings:
    """Until when a line's places are given away, one each `step_s`, and when a call last came to it."""

    until: float
    step_s: float
    came_at: float


class RetryAfter:
    """One for an edge. `num_edges` is how many have requests waiting in a line: they share its places."""

    def __init__(
        self,
        rates: ServiceRates,
        num_edges: Callable[[Line], int] = lambda line: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = rates
        self._num_edges = num_edges
        self._clock = clock
        self._lines: dict[Line, _Bookings] = {}

    def note_arrival(self, line: Line) -> None:
        """A call has come that wants a place of the line, whether it will get one or not."""
        bookings = self._lines.get(line)
        if bookings is None:
            return
        now = self._clock()
        if now - bookings.came_at > _MISSED_TURNS * bookings.step_s + _BLUR_S:
            del self._lines[line]
        else:
            bookings.came_at = now

    def seconds(
        self, line: Line, *, asked: int = 1, missing: int = 1, above: int = 0, at_once: int | None = None
    ) -> float:
        """Book a place in the line for a call of `asked` requests, and say when its turn is.

        `missing` requests of the class have to start before there is room, and `above` of the higher classes before
        these. The header counts whole seconds, so all whose turn is in the same second come back at its end: no more of
        them than the queue takes `at_once`.
        """
        rate = self._rates.class_places_per_s(*line) * _SHARE
        if at_once is not None:
            rate = min(rate, max(at_once, 1))
        rate /= max(self._num_edges(line), 1)
        return self._book(line, self._rates.time_for(*line, missing, above), asked / rate)

    def seconds_at_the_door(self) -> float:
        """For a call that this edge has no room for, whatever it wants."""
        step = 1 / self._rates.all_places_per_s()
        return self._book(_DOOR, step, step)

    def _book(self, line: Line, soonest_s: float, step_s: float) -> float:
        now = self._clock()
        self._forget_past(now)
        booked_until = self._lines[line].until if line in self._lines else now
        turn = min(max(now + soonest_s, booked_until + step_s), now + LONGEST_S)
        self._lines[line] = _Bookings(turn, step_s, now)
        return turn - now

    def _forget_past(self, now: float) -> None:
        """Lines without a future booking hold nothing."""
        for line in [line for line, bookings in self._lines.items() if bookings.until <= now]:
            del self._lines[line]
