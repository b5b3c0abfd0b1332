"""Metrics of the edge. Labels are bounded: models are those that are known, codes those of the error table."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from schemas.errors import ErrorCode
from schemas.requests import Endpoint, PriorityClass

OK = "ok"
UNKNOWN_MODEL = "unknown"
_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class EdgeMetrics:
    """The request metrics and the fleet's queue, on a registry of its own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        # Creation times would double the number of series and say nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._requests = Counter(
            "inferflux_requests",
            "Generation calls by outcome: ok, or the error code.",
            ["endpoint", "model", "code"],
            registry=registry,
        )
        self._duration = Histogram(
            "inferflux_request_duration_seconds",
            "From acceptance to the end of a generation call.",
            ["endpoint", "model"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "inferflux_time_to_first_token_seconds",
            "From acceptance to the first token at the edge.",
            ["model", "priority"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._inter_token = Histogram(
            "inferflux_inter_token_seconds",
            "Mean time between tokens of one stream, for each wake-up of its reader.",
            ["model"],
            buckets=_TOKEN_BUCKETS,
            registry=registry,
        )
        self._queue_wait = Histogram(
            "inferflux_queue_wait_seconds",
            "From acceptance until a worker started the request.",
            ["model", "priority"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._stream_tokens = Counter(
            "inferflux_stream_tokens", "Tokens sent in streams.", ["model"], registry=registry
        )
        self._queue_depth = Gauge(
            "inferflux_queue_depth", "Requests waiting for a worker.", ["model", "priority"], registry=registry
        )
        self._queue_age = Gauge(
            "inferflux_queue_oldest_age_seconds",
            "Age of the oldest waiting request.",
            ["model", "priority"],
            registry=registry,
        )
        self._workers_desired = Gauge(
            "inferflux_workers_desired", "Workers that would leave nothing waiting.", ["model"], registry=registry
        )
        self.live_calls = Gauge("inferflux_live_calls", "Generation calls in this edge.", registry=registry)
        self._auth_failures = Counter("inferflux_auth_failures", "Refused credentials.", ["reason"], registry=registry)
        self.rate_limited = Counter("inferflux_rate_limited", "Calls refused by a rate limit.", registry=registry)
        self.guardrail_blocks = Counter(
            "inferflux_guardrail_blocks", "Prompts and answers a guardrail stopped.", registry=registry
        )
        for code in (ErrorCode.INVALID_API_KEY, ErrorCode.INSUFFICIENT_SCOPE):
            self._auth_failures.labels(str(code))

    def ended(self, endpoint: Endpoint, model: str, code: str, duration_s: float) -> None:
        self._requests.labels(str(endpoint), model, code).inc()
        self._duration.labels(str(endpoint), model).observe(duration_s)

    def refused(self, endpoint: Endpoint, model: str, code: ErrorCode) -> None:
        self._requests.labels(str(endpoint), model, str(code)).inc()

    def auth_failed(self, code: ErrorCode) -> None:
        self._auth_failures.labels(str(code)).inc()

    def started(self, model: str, priority: PriorityClass, wait_s: float) -> None:
        self._queue_wait.labels(model, str(priority)).observe(wait_s)

    def first_token(self, model: str, priority: PriorityClass, wait_s: float) -> None:
        self._first_token.labels(model, str(priority)).observe(wait_s)

    def for_stream(self, model: str) -> "StreamMetrics":
        return StreamMetrics(self._stream_tokens.labels(model), self._inter_token.labels(model))

    def queue(self, model: str, priority: PriorityClass, depth: int, oldest_age_s: float) -> None:
        self._queue_depth.labels(model, str(priority)).set(depth)
        self._queue_age.labels(model, str(priority)).set(oldest_age_s)

    def workers_desired(self, model: str, number: int) -> None:
        self._workers_desired.labels(model).set(number)


class StreamMetrics:
    """What one stream counts, with its labels bound once."""

    __slots__ = ("_gaps", "_last_at", "_num_tokens", "_tokens")

    def __init__(self, tokens: Counter, gaps: Histogram) -> None:
        self._tokens = tokens
        self._gaps = gaps
        self._num_tokens = 0
        self._last_at = 0.0

    def note(self, num_tokens: int, now: float) -> None:
        """`num_tokens` of this stream have been sent by `now` (monotonic)."""
        new = num_tokens - self._num_tokens
        if new <= 0:
            return
        self._tokens.inc(new)
        if self._num_tokens:
            self._gaps.observe((now - self._last_at) / new)
        self._num_tokens = num_tokens
        self._last_at = now
