"""Demand that never reached the queue, for the autoscaling hint."""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

_WINDOW_S = 60.0
_MAX_KEPT = 10_000


class Demand:
    """Calls refused for want of a worker, over the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_MAX_KEPT))

    def note_refused(self, model: str) -> None:
        self._refused[model].append(self._clock())

    def num_refused(self, model: str) -> int:
        times = self._refused.get(model)
        if not times:
            return 0
        oldest = self._clock() - _WINDOW_S
        while times and times[0] < oldest:
            times.popleft()
        return len(times)


def workers_desired(in_system: int, refused: int, slots_per_worker: int) -> int:
    """Workers that would run everything that is waiting, running or was turned away."""
    return math.ceil((in_system + refused) / max(slots_per_worker, 1))
