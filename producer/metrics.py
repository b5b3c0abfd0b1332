"""Metrics of the edge. Labels are bounded: models are those that are known, codes those of the error table."""

import contextlib
from collections.abc import Container
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from schemas.errors import ErrorCode
from schemas.requests import Endpoint, PriorityClass
from schemas.tracing import Outcome

OK = "ok"
FAILED = "failed"
UNKNOWN_MODEL = "unknown"
_LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_COUNT_EVERY_S = 0.05
_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class LineOutcome(StrEnum):
    """A line of a batch taken by this edge. One that is put off comes again, here or elsewhere."""

    DONE = "done"
    FAILED = "failed"
    PUT_OFF = "put_off"
    DROPPED = "dropped"


class EdgeMetrics:
    """The request metrics and the fleet's queue, on a registry of its own. An outcome is `ok` or an error code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._shown: set[str] = set()
        # Creation times would double the number of series and say nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._requests = self._counter("requests", "Generation calls by outcome.", "endpoint", "model", "code")
        self._duration = self._histogram(
            "request_duration", "From acceptance to the end of a call.", _LATENCY_BUCKETS, "endpoint", "model"
        )
        self._first_token = self._histogram(
            "time_to_first_token", "From acceptance to the first token.", _LATENCY_BUCKETS, "model", "priority"
        )
        self._inter_token = self._histogram(
            "inter_token", "Mean time between tokens of one stream, over at least 50 ms.", _TOKEN_BUCKETS, "model"
        )
        self._queue_wait = self._histogram(
            "queue_wait", "From acceptance until a worker started it.", _LATENCY_BUCKETS, "model", "priority"
        )
        self._stream_tokens = self._counter("stream_tokens", "Tokens sent in streams.", "model")
        self._queue_depth = self._gauge("queue_depth", "Requests waiting for a worker.", "model", "priority")
        self._queue_in_hand = self._gauge("queue_in_hand", "Requests that workers have.", "model", "priority")
        self._queue_tokens = self._gauge(
            "queue_prompt_tokens", "Estimated prompt tokens of the requests that wait.", "model", "priority"
        )
        self._queue_age = self._gauge("queue_oldest_age_seconds", "Longest wait so far.", "model", "priority")
        self._workers_desired = self._gauge(
            "workers_desired", "Workers that a model should have; over edges take the highest.", "model"
        )
        self.live_calls = self._gauge("live_calls", "Generation calls in this edge.")
        self._auth_failures = self._counter("auth_failures", "Refused credentials.", "reason")
        self._issuer_requests = self._counter("issuer_requests", "Questions to the issuer of tokens.", "outcome")
        self.slow_readers = self._counter("slow_readers", "Streams cut because their client did not read.")
        self.rate_limited = self._counter("rate_limited", "Calls refused by a rate limit.")
        self.guardrail_blocks = self._counter("guardrail_blocks", "Prompts and answers a guardrail stopped.")
        self.batch_lines = self._counter("batch_lines", "Lines of offline batches by what became of them.", "outcome")
        for line_end in LineOutcome:
            self.batch_lines.labels(str(line_end))
        self.config_reloads = self._counter("config_reloads", "Times the configuration was read again.", "result")
        for result in (OK, FAILED):
            self.config_reloads.labels(result)
        self.manifest_ok = self._gauge("manifest_ok", "Whether the manifest of models is used as it is: 1, else 0.")
        self.manifest_errors = self._counter("manifest_errors", "Changes of the manifest that could not be used.")
        self.broker_up = self._gauge("broker_up", "1 while the broker is reachable and journals are followed, else 0.")
        self._workers = self._gauge("workers", "Live workers that take requests.", "model")
        self._trace_spans = self._counter("trace_spans", "Spans by what became of them.", "outcome")
        for end in Outcome:
            self._trace_spans.labels(end.value)
        self.audit_lost = self._counter("audit_lost", "Audit events that could not be recorded.")
        for outcome in (OK, FAILED):
            self._issuer_requests.labels(outcome)
        self.guardrail_decisions = self._counter(
            "guardrail_decisions", "What the policy decided on requests, and what passed without it.", "outcome"
        )
        for code in (ErrorCode.INVALID_API_KEY, ErrorCode.INSUFFICIENT_SCOPE):
            self._auth_failures.labels(str(code))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"inferflux_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"inferflux_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"inferflux_{name}_seconds", text, labels, buckets=buckets, registry=self.registry)

    def ended(self, endpoint: Endpoint, model: str, code: str, duration_s: float, trace_id: str | None = None) -> None:
        self._requests.labels(str(endpoint), model, code).inc()
        self._duration.labels(str(endpoint), model).observe(duration_s, _exemplar(trace_id))

    def refused(self, endpoint: Endpoint, model: str, code: ErrorCode) -> None:
        self._requests.labels(str(endpoint), model, str(code)).inc()

    def auth_failed(self, code: ErrorCode) -> None:
        self._auth_failures.labels(str(code)).inc()

    def issuer_answered(self, is_answer: bool) -> None:
        """The issuer of tokens was asked for its keys, and gave them or not."""
        self._issuer_requests.labels(OK if is_answer else FAILED).inc()

    def started(self, model: str, priority: PriorityClass, wait_s: float) -> None:
        self._queue_wait.labels(model, str(priority)).observe(wait_s)

    def first_token(self, model: str, priority: PriorityClass, wait_s: float, trace_id: str | None = None) -> None:
        self._first_token.labels(model, str(priority)).observe(wait_s, _exemplar(trace_id))

    def for_stream(self, model: str) -> "StreamMetrics":
        return StreamMetrics(self._stream_tokens.labels(model), self._inter_token.labels(model))

    def queue(
        self, model: str, priority: PriorityClass, depth: int, in_hand: int, tokens: int, oldest_age_s: float
    ) -> None:
        self._shown.add(model)
        self._queue_depth.labels(model, str(priority)).set(depth)
        self._queue_in_hand.labels(model, str(priority)).set(in_hand)
        self._queue_tokens.labels(model, str(priority)).set(tokens)
        self._queue_age.labels(model, str(priority)).set(oldest_age_s)

    def workers(self, model: str, number: int) -> None:
        self._shown.add(model)
        self._workers.labels(model).set(number)

    def keep_models(self, models: Container[str]) -> None:
        """Forget the fleet's state of models that are no longer known: it would stand still."""
        for gone in [model for model in self._shown if model not in models]:
            self._shown.discard(gone)
            for gauge in (self._workers, self._workers_desired):
                _forget(gauge, gone)
            for gauge in (self._queue_depth, self._queue_in_hand, self._queue_tokens, self._queue_age):
                for priority in PriorityClass:
                    _forget(gauge, gone, str(priority))

    def count_spans(self, outcome: Outcome, number: int) -> None:
        self._trace_spans.labels(outcome.value).inc(number)

    def workers_desired(self, model: str, number: int) -> None:
        self._workers_desired.labels(model).set(number)

    def no_workers_desired(self, model: str) -> None:
        """The model is known no longer."""
        _forget(self._workers_desired, model)


def _forget(gauge: Gauge, *labels: str) -> None:
    with contextlib.suppress(KeyError):
        gauge.remove(*labels)


def _exemplar(trace_id: str | None) -> dict[str, str] | None:
    return None if trace_id is None else {"trace_id": trace_id}


class StreamMetrics:
    """What one stream counts, with its labels bound once."""

    __slots__ = ("_gaps", "_last_at", "_num_tokens", "_tokens")

    def __init__(self, tokens: Counter, gaps: Histogram) -> None:
        self._tokens = tokens
        self._gaps = gaps
        self._num_tokens = 0
        self._last_at = 0.0

    def note(self, num_tokens: int, now: float, *, is_last: bool = False) -> None:
        """`num_tokens` of this stream have been sent by `now` (monotonic). Fast streams are counted now and then."""
        new = num_tokens - self._num_tokens
        if new <= 0 or (now - self._last_at < _COUNT_EVERY_S and not is_last):
            return
        self._tokens.inc(new)
        if self._num_tokens:
            self._gaps.observe((now - self._last_at) / new)
        self._num_tokens = num_tokens
        self._last_at = now
