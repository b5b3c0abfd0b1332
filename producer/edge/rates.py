"""How fast the fleet serves a model, as measured: places per second = slots / mean service time.

A request of one class starts only after those of the classes above it, so a class's own rate is the share of all starts
that were left for it and the classes below.
"""

import time
from collections.abc import Callable, Sequence

from schemas.requests import PriorityClass

_WEIGHT = 0.1
# Until something was measured, and nothing runs whose age tells more.
_FIRST_GUESS_S = 1.0
_SHORTEST_S = 0.001
# Starts count half as much after so long.
_HALF_LIFE_S = 20.0
# A class that gets nothing at present is told a long time, not for ever.
_LEAST_SHARE = 0.02


class _Starts:
    """Starts by class, the older the less they count."""

    __slots__ = ("_at", "_counts")

    def __init__(self, now: float) -> None:
        self._at = now
        self._counts = dict.fromkeys(PriorityClass, 0.0)

    def note(self, priority: PriorityClass, now: float) -> None:
        fading = 0.5 ** ((now - self._at) / _HALF_LIFE_S)
        self._at = now
        for each in self._counts:
            self._counts[each] *= fading
        self._counts[priority] += 1.0

    def share(self, priority: PriorityClass) -> float:
        """Of the starts of all classes, those that did not go to classes above `priority`."""
        everything = sum(self._counts.values())
        above = sum(count for each, count in self._counts.items() if each.rank < priority.rank)
        return max(1.0 - above / (everything + 1.0), _LEAST_SHARE)


class ServiceRates:
    """Mean time from start to end of a request, and who gets the starts, for each model, from what this edge has seen.

    `num_slots` is the fleet's; `ages` (seconds) are those of the requests that run now and are this edge's. Held for
    models that are known, so as many as these.
    """

    def __init__(
        self,
        num_slots: Callable[[str], int],
        ages: Callable[[str], Sequence[float]] = lambda model: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_slots = num_slots
        self._ages = ages
        self._clock = clock
        self._mean_s: dict[str, float] = {}
        self._starts: dict[str, _Starts] = {}

    def note(self, model: str, service_s: float) -> None:
        """A request has ended `service_s` after its start."""
        mean = self._mean_s.get(model)
        self._mean_s[model] = service_s if mean is None else mean + _WEIGHT * (service_s - mean)

    def note_start(self, model: str, priority: PriorityClass) -> None:
        now = self._clock()
        self._starts.setdefault(model, _Starts(now)).note(priority, now)

    def places_per_s(self, model: str) -> float:
        """Of all edges and classes together."""
        return max(self._num_slots(model), 1) / max(self._service_s(model), _SHORTEST_S)

    def class_places_per_s(self, model: str, priority: PriorityClass) -> float:
        """What the classes above leave."""
        starts = self._starts.get(model)
        return self.places_per_s(model) * (1.0 if starts is None else starts.share(priority))

    def time_for(self, model: str, priority: PriorityClass, num_places: int, num_above: int = 0) -> float:
        """Seconds until `num_places` requests of a class have started, and before them `num_above` of higher ones."""
        rest = max(num_places, 1) / self.class_places_per_s(model, priority)
        return max(num_above, 0) / self.places_per_s(model) + rest

    def service_s(self, model: str) -> float:
        """How long a request of the model runs, on average."""
        return self._service_s(model)

    def all_places_per_s(self) -> float:
        """Of all models that were measured; the first guess when none was."""
        return sum(self.places_per_s(model) for model in self._mean_s) or 1 / _FIRST_GUESS_S

    def _service_s(self, model: str) -> float:
        mean = self._mean_s.get(model)
        if mean is not None:
            return mean
        ages = self._ages(model)
        # Nothing has ended yet: what runs has on average come half its way.
        return max(_FIRST_GUESS_S, 2 * sum(ages) / len(ages) if ages else 0.0)
