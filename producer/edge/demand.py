"""Demand that never reached the queue, for the autoscaling hint."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from producer.autoscale.scaler import REFUSED_WINDOW_S

_MAX_KEPT = 10_000
_MAX_EDGES = 1024
# An edge that is silent has refused nobody, or is gone.
_SILENT_S = 15.0


class _Said(NamedTuple):
    """What another edge said last."""

    at: float
    refused: Mapping[str, int]


class Demand:
    """Calls refused for want of a worker, over the last minute: by this edge, and by the others as they tell.

    `news` is set by the first of a model, which the others should hear of at once: it wakes a worker.
    """

    def __init__(self, edge_id: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._edge_id = edge_id
        self._clock = clock
        self._refused: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_MAX_KEPT))
        self._others: dict[str, _Said] = {}
        self.news = asyncio.Event()

    def note_refused(self, model: str) -> None:
        if self._num_own(model) == 0:
            self.news.set()
        self._refused[model].append(self._clock())

    def heard(self, edge_id: str, refused: Mapping[str, int]) -> None:
        """Another edge says how many it has refused."""
        self._forget_silent()
        if edge_id != self._edge_id and (edge_id in self._others or len(self._others) < _MAX_EDGES):
            self._others[edge_id] = _Said(self._clock(), refused)

    def own(self) -> dict[str, int]:
        """What the others are to be told."""
        counts = {model: self._num_own(model) for model in list(self._refused)}
        return {model: number for model, number in counts.items() if number}

    def num_refused(self, model: str) -> int:
        """Of all edges."""
        self._forget_silent()
        return self._num_own(model) + sum(said.refused.get(model, 0) for said in self._others.values())

    def _num_own(self, model: str) -> int:
        times = self._refused.get(model)
        if times is None:
            return 0
        oldest = self._clock() - REFUSED_WINDOW_S
        while times and times[0] < oldest:
            times.popleft()
        if not times:
            del self._refused[model]
        return len(times)

    def _forget_silent(self) -> None:
        oldest = self._clock() - _SILENT_S
        for edge_id in [edge_id for edge_id, said in self._others.items() if said.at < oldest]:
            del self._others[edge_id]
