"""How fast the fleet serves a model, as measured: places per second = slots / mean service time."""

from collections.abc import Callable

_WEIGHT = 0.1
# Until something was measured.
_FIRST_GUESS_S = 1.0


class ServiceRates:
    """Mean time from start to end of a request, for each model, from the requests this edge has seen."""

    def __init__(self, num_slots: Callable[[str], int]) -> None:
        self._num_slots = num_slots
        self._mean_s: dict[str, float] = {}

    def note(self, model: str, service_s: float) -> None:
        mean = self._mean_s.get(model)
        self._mean_s[model] = service_s if mean is None else mean + _WEIGHT * (service_s - mean)

    def places_per_s(self, model: str) -> float:
        mean = max(self._mean_s.get(model, _FIRST_GUESS_S), 0.001)
        return max(self._num_slots(model), 1) / mean

    def time_for(self, model: str, num_places: int) -> float:
        """Seconds until `num_places` requests have ended at the measured rate."""
        return max(num_places, 1) / self.places_per_s(model)
