"""How much of each cell: as it is measured, or a few of everything to see that it works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OverheadSizes:
    """`rates` in requests per second, each held for `seconds`, with `min_requests` at least."""

    rates: tuple[float, ...] = (5.0, 20.0, 50.0)
    seconds: float = 12.0
    min_requests: int = 100
    num_warm_up: int = 40

    def num_requests(self, per_s: float) -> int:
        return max(self.min_requests, round(per_s * self.seconds))


@dataclass(frozen=True, slots=True)
class ThroughputSizes:
    """`streams` at once, `per_stream` one after another, `num_tokens` each."""

    streams: int = 64
    per_stream: int = 3
    num_tokens: int = 768


@dataclass(frozen=True, slots=True)
class BacklogSizes:
    """Requests queued, how many of them are seen out, and first tokens taken meanwhile."""

    num_requests: int = 100_000
    num_drained: int = 20_000
    num_asked: int = 50


@dataclass(frozen=True, slots=True)
class StackSizes:
    overhead: OverheadSizes = OverheadSizes()
    throughput: ThroughputSizes = ThroughputSizes()
    idle_streams: int = 1000
    backlog: BacklogSizes = BacklogSizes()


# To see that everything works.
QUICK = StackSizes(
    OverheadSizes(rates=(50.0,), seconds=0.0, min_requests=4, num_warm_up=2),
    ThroughputSizes(streams=2, per_stream=1, num_tokens=32),
    idle_streams=4,
    backlog=BacklogSizes(num_requests=30, num_drained=20, num_asked=2),
)
