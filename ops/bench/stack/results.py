"""What the cells about the stack itself gave. Plain data, as it goes into the record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ops.bench.summary import percentile

# What the edge is meant to add at most at 50 requests a second, and to stream for a second of its processor.
GOAL_P50_MS = 3.0
GOAL_P99_MS = 8.0
GOAL_PER_S = 50
GOAL_TOKENS_PER_CORE_S = 20_000


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of times in milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Quantiles":
        milliseconds = [1000 * value for value in seconds]
        return cls(percentile(milliseconds, 50), percentile(milliseconds, 99))

    def minus(self, other: "Quantiles") -> "Quantiles":
        """Quantile by quantile: not the quantiles of the differences, since no two runs hold the same request."""
        return Quantiles(self.p50_ms - other.p50_ms, self.p99_ms - other.p99_ms)


@dataclass(frozen=True, slots=True)
class Overhead:
    """First tokens at one rate: through the server, without it, and the difference."""

    server: str
    per_s: float
    num_requests: int
    through: Quantiles
    direct: Quantiles
    cpu_s: Mapping[str, float]

    @property
    def added(self) -> Quantiles:
        return self.through.minus(self.direct)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Many streams at full rate. `num_events` are arrivals of content at the load generator, `cpu_s` seconds of the
    server's own process."""

    server: str
    streams: int
    num_tokens: int
    num_events: int
    wall_s: float
    cpu_s: float
    others_cpu_s: Mapping[str, float]

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.wall_s

    @property
    def tokens_per_core_s(self) -> float:
        return self.num_tokens / self.cpu_s


@dataclass(frozen=True, slots=True)
class IdleStreams:
    """Memory of the edge, resident, in bytes: with no stream open, and with all of them."""

    streams: int
    before_bytes: int
    open_bytes: int
    broker_before_bytes: int
    broker_open_bytes: int

    @property
    def bytes_per_stream(self) -> float:
        return (self.open_bytes - self.before_bytes) / self.streams


@dataclass(frozen=True, slots=True)
class Backlog:
    """A queue of `num_requests`. Memory is the broker's, resident, in bytes; `meanwhile` are first tokens of requests
    of class normal while the queue is long, with at least `num_left_meanwhile` in it, `before` those without it."""

    num_requests: int
    publish_s: float
    broker_before_bytes: int
    broker_full_bytes: int
    broker_disk_bytes: int
    num_drained: int
    drain_s: float
    before: Quantiles
    meanwhile: Quantiles
    num_left_meanwhile: int

    @property
    def published_per_s(self) -> float:
        return self.num_requests / self.publish_s

    @property
    def drained_per_s(self) -> float:
        return self.num_drained / self.drain_s


@dataclass(slots=True)
class StackResults:
    """As they come; what was not asked for is empty."""

    overhead: list[Overhead] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)
    idle: IdleStreams | None = None
    backlog: Backlog | None = None
    versions: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.overhead or self.throughput or self.idle or self.backlog)
