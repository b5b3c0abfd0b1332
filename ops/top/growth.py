"""What counters did between two readings. A counter that went back began anew. Pure."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from ops.top.reading import Reading, Sample

Keep = Callable[[Sample], bool]


class Growth:
    """Between an earlier reading and a later one."""

    def __init__(self, before: Reading, after: Reading) -> None:
        self.seconds = max(after.at - before.at, 1e-9)
        self._before = before
        self._after = after

    def of(self, name: str, keep: Keep = lambda _: True) -> float:
        """By how much the samples of a name grew, those that `keep` wants."""
        return sum(value for sample, value in self._each(name) if keep(sample))

    def rate(self, name: str, keep: Keep = lambda _: True) -> float:
        """The same for each second."""
        return self.of(name, keep) / self.seconds

    def by(self, name: str, label: str, keep: Keep = lambda _: True) -> dict[str, float]:
        """Growth for each value of a label."""
        found: dict[str, float] = {}
        for sample, value in self._each(name):
            if keep(sample):
                found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + value
        return found

    def mean(self, histogram: str, keep: Keep = lambda _: True) -> float | None:
        """Mean of what a histogram observed meanwhile; None when that was nothing."""
        count = self.of(f"{histogram}_count", keep)
        return self.of(f"{histogram}_sum", keep) / count if count > 0 else None

    def quantile(self, histogram: str, q: float, keep: Keep = lambda _: True) -> float | None:
        """Estimated within a bucket, as Prometheus does; None when nothing was observed."""
        buckets: dict[float, float] = {}
        for sample, value in self._each(f"{histogram}_bucket"):
            if keep(sample):
                limit = float(sample.labels["le"])
                buckets[limit] = buckets.get(limit, 0.0) + value
        return _quantile(buckets, q)

    def _each(self, name: str) -> list[tuple[Sample, float]]:
        earlier = {_key(sample): sample.value for sample in self._before.of(name)}
        grown = []
        for sample in self._after.of(name):
            was = earlier.get(_key(sample), 0.0)
            grown.append((sample, sample.value - was if sample.value >= was else sample.value))
        return grown


def _quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """`buckets` holds counts of what was up to each limit, the last limit being infinity."""
    limits = sorted(buckets)
    if not limits or buckets[limits[-1]] <= 0:
        return None
    rank = q * buckets[limits[-1]]
    for low, high in pairwise([0.0, *limits]):
        below = buckets.get(low, 0.0)
        if buckets[high] >= rank:
            if high == float("inf"):
                return low
            inside = buckets[high] - below
            return low + (high - low) * ((rank - below) / inside if inside > 0 else 0.0)
    return limits[-1]


def _key(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(sample.labels.items())
