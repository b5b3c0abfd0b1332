"""Arrivals per second, and seconds that a request keeps a slot, from the counters of one moment and the next."""

import math

from producer.autoscale.facts import ClassFacts, Facts
from schemas.requests import PriorityClass

_ARRIVALS_S = 30.0
_SERVICE_S = 60.0
# What came in the first moment of looking says little about a second: it counts as what came in so many.
_LEAST_SPAN_S = 10.0
# As if one request had been measured before, so that the first answer is a guess and no division by zero.
_GUESS_S = 1.0


class Rates:
    """Means over a fading past. A request's time in its slot is what all slots were busy over how many requests ended,
    so it also grows while nothing ends. It fades with busy time only: after a pause it is still known."""

    __slots__ = ("_arrived", "_before", "_busy_s", "_ended", "_span_s")

    def __init__(self) -> None:
        self._before: Facts | None = None
        self._arrived = self._span_s = 0.0
        self._busy_s = self._ended = 0.0

    def note(self, facts: Facts) -> None:
        """Take in the next facts, which are no earlier than the last."""
        before, self._before = self._before, facts
        if before is None or facts.at <= before.at:
            return
        passed_s = facts.at - before.at
        arrived, ended = _arrived(before, facts), _ended(before, facts)
        fading = math.exp(-passed_s / _ARRIVALS_S)
        self._arrived = self._arrived * fading + arrived
        self._span_s = self._span_s * fading + passed_s
        busy_s = (before.running + facts.running) / 2 * passed_s
        if busy_s > 0 or ended > 0:
            fading = math.exp(-passed_s / _SERVICE_S)
            self._busy_s = self._busy_s * fading + busy_s
            self._ended = self._ended * fading + ended

    @property
    def arrivals_per_s(self) -> float:
        """Requests of all classes but batch, which comes in heaps that say nothing about the next minute."""
        return max(self._arrived, 0.0) / max(self._span_s, _LEAST_SPAN_S)

    @property
    def service_s(self) -> float:
        return (self._busy_s + _GUESS_S) / (max(self._ended, 0.0) + 1.0)


def _arrived(before: Facts, now: Facts) -> int:
    """Those that were withdrawn while they waited count as never come."""
    return sum(
        new.num_delivered - old.num_delivered + new.waiting - old.waiting
        for priority in PriorityClass
        if priority is not PriorityClass.BATCH
        for old, new in [(before.of(priority), now.of(priority))]
        if not _is_recreated(old, new)
    )


def _ended(before: Facts, now: Facts) -> int:
    return sum(
        new.num_delivered - old.num_delivered - (new.running - old.running)
        for priority in PriorityClass
        for old, new in [(before.of(priority), now.of(priority))]
        if not _is_recreated(old, new)
    )


def _is_recreated(old: ClassFacts, new: ClassFacts) -> bool:
    """Whether the queue's counters began anew."""
    return new.num_delivered < old.num_delivered
