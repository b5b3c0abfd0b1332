"""What a worker measures, and the scrape port that shows it. Names are the contract's; buckets reach up to minutes."""

import contextlib
from collections.abc import Callable
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from schemas.tracing import Outcome
from workers.engine.stats import EngineStats

FIRST_PORT = 9101
PORTS_TRIED = 100
SLOT_STATES = ("busy", "free", "waiting")
KV_STATES = ("used", "reserved", "cached")
OFFLOAD_TIERS = ("host", "nvme")
OFFLOAD_DIRECTIONS = ("out", "in")
_BROKER_UP = "1 while the broker is reachable and journals are followed, else 0."


class WorkerMetrics:
    """One process's families in a registry of their own. Children are bound per model once, not per step."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Creation times would double the number of series and say nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens computed")
        self.completion_tokens = self._counter("completion_tokens", "Tokens generated")
        self.batch_size = Histogram(
            "inferflux_batch_size",
            "Sequences in a step",
            ["model"],
            buckets=(1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256),
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "inferflux_step_seconds",
            "Duration of a step",
            ["model"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
            registry=self.registry,
        )
        self.worker_slots = Gauge("inferflux_worker_slots", "Sequences", ["model", "state"], registry=self.registry)
        self.kv_pages = Gauge(
            "inferflux_kv_pages",
            "KV in tokens: used by running sequences, reserved for them (the used ones included), cached, free",
            ["model", "state"],
            registry=self.registry,
        )
        self.model_loads = Counter(
            "inferflux_model_loads_total",
            "Models that were loaded, or failed to",
            ["model", "result"],
            registry=self.registry,
        )
        self.preemptions = self._counter("fairness_preemptions", "Sequences that lost their place to a higher class")
        self.yields = self._counter("fairness_yields", "Sequences that gave their place up after their timeslice")
        self.resumes = self._counter("fairness_resumes", "Sequences that got a place again")
        self.prefix_hits = self._counter("prefix_hits", "Sequences that found the beginning of their prompt computed")
        self.prefix_misses = self._counter("prefix_misses", "Sequences that did not")
        self.prefix_matched_tokens = self._counter("prefix_matched_tokens", "Tokens that were not computed again")
        self.prefix_evictions = self._counter("prefix_evictions", "Cached beginnings that others needed the room of")
        self.redeliveries = self._counter("redeliveries", "Deliveries that were not the first")
        self.dead_letters = Counter(
            "inferflux_dlq_total", "Requests given up, by reason", ["model", "reason"], registry=self.registry
        )

        self.broker_up = Gauge("inferflux_broker_up", _BROKER_UP, registry=self.registry)
        self._trace_spans = Counter(
            "inferflux_trace_spans_total", "Spans by what became of them.", ["outcome"], registry=self.registry
        )
        for outcome in Outcome:
            self._trace_spans.labels(outcome.value)
        self.spec_chunks = self._counter("spec_chunks", "Runs of tokens that a draft proposed")
        self.spec_chunks_accepted = self._counter("spec_chunks_accepted", "Of these, what the model took over")
        self.spec_tokens_reused = self._counter("spec_tokens_reused", "Drafted tokens that became part of an answer")
        self.kv_offload_pages = self._offload("kv_offload_pages", "KV moved between tiers, in tokens")
        self.kv_offload_bytes = self._offload("kv_offload_bytes", "KV moved between tiers, in bytes")

    def for_model(self, model: str) -> None:
        """Show at 0 what has not happened yet, so that its first time is an increase."""
        for counter in (
            self.preemptions,
            self.yields,
            self.resumes,
            self.prefix_hits,
            self.prefix_misses,
            self.prefix_matched_tokens,
            self.redeliveries,
            self.spec_chunks,
            self.spec_chunks_accepted,
            self.spec_tokens_reused,
        ):
            counter.labels(model)
        self.dead_letters.labels(model, "poisoned")
        for tier in OFFLOAD_TIERS:
            for direction in OFFLOAD_DIRECTIONS:
                self.kv_offload_pages.labels(model, tier, direction)
                self.kv_offload_bytes.labels(model, tier, direction)

    def count_spans(self, outcome: Outcome, number: int) -> None:
        """What became of spans; from any thread."""
        self._trace_spans.labels(outcome.value).inc(number)

    def _offload(self, name: str, help_text: str) -> Counter:
        labels = ["model", "tier", "direction"]
        return Counter(f"inferflux_{name}_total", help_text, labels, registry=self.registry)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(f"inferflux_{name}_total", help_text, ["model"], registry=self.registry)

    def forget(self, model: str) -> None:
        """The states of a model that is not here any more; what was counted stays."""
        for gauge, states in ((self.worker_slots, SLOT_STATES), (self.kv_pages, KV_STATES)):
            for state in states:
                with contextlib.suppress(KeyError):
                    gauge.remove(model, state)

    def step_observer(self, model: str) -> Callable[[int, int, int, float], None]:
        """The engine's hook for one model: batch size, prompt and completion tokens, seconds; after every step."""
        batch_size = self.batch_size.labels(model)
        step_seconds = self.step_seconds.labels(model)
        prompt_tokens = self.prompt_tokens.labels(model)
        completion_tokens = self.completion_tokens.labels(model)

        def observe(num_sequences: int, num_prompt: int, num_completion: int, duration_s: float) -> None:
            batch_size.observe(num_sequences)
            step_seconds.observe(duration_s)
            prompt_tokens.inc(num_prompt)
            completion_tokens.inc(num_completion)

        return observe


class EngineTotals:
    """Counters that follow an engine's totals. Called from the event loop."""

    def __init__(self, metrics: WorkerMetrics, model: str) -> None:
        self._counters = {
            "preemptions_total": metrics.preemptions.labels(model),
            "yields_total": metrics.yields.labels(model),
            "resumes_total": metrics.resumes.labels(model),
            "prefix_hits_total": metrics.prefix_hits.labels(model),
            "prefix_misses_total": metrics.prefix_misses.labels(model),
            "prefix_matched_tokens_total": metrics.prefix_matched_tokens.labels(model),
            "prefix_evictions_total": metrics.prefix_evictions.labels(model),
        }
        self._seen = EngineStats()

    def export(self, stats: EngineStats) -> None:
        for name, counter in self._counters.items():
            counter.inc(max(0, getattr(stats, name) - getattr(self._seen, name)))  # an engine that broke says 0
        self._seen = stats


class MetricsServer:
    """The scrape port. It needs no key, so it is for loopback or a network of the operator's own."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int | None) -> None:
        self._server, self._thread, self.port = _listen(registry, host, port)
        bracketed = f"[{host}]" if ":" in host else host
        self.url = f"http://{bracketed}:{self.port}/metrics"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _listen(registry: CollectorRegistry, host: str, port: int | None) -> tuple[WSGIServer, Thread, int]:
    last = port if port is not None else FIRST_PORT + PORTS_TRIED
    candidate = port if port is not None else FIRST_PORT
    while True:
        try:
            server, thread = start_http_server(candidate, addr=host, registry=registry)
        except OSError:
            if candidate >= last:
                raise
            candidate += 1
            continue
        return server, thread, server.server_port
