"""The metrics of real processes: which there are, with what labels, and that they move as the traffic says."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest

from schemas.errors import ErrorCode
from schemas.requests import PriorityClass
from tests.ops.telemetry.conftest import Observed
from tests.ops.telemetry.samples import OPENMETRICS, Scrape, increase, scrape_edge
from tests.system.stack import KEY, fetch, until

pytestmark = [pytest.mark.timeout(240), pytest.mark.otel]

# What is promised, without the prefix, where it is, and the labels that are promised.
CONTRACT = """
edge   requests_total request_duration_seconds time_to_first_token_seconds inter_token_seconds queue_wait_seconds
edge   queue_depth{model,priority} queue_oldest_age_seconds{model,priority} stream_tokens_total
edge   rate_limited_total guardrail_blocks_total auth_failures_total{reason} workers_desired{model}
worker prompt_tokens_total completion_tokens_total batch_size kv_pages{state}
worker prefix_hits_total prefix_misses_total prefix_matched_tokens_total
worker spec_chunks_total spec_chunks_accepted_total spec_tokens_reused_total
worker kv_offload_pages_total{tier,direction} kv_offload_bytes_total{tier,direction}
worker fairness_preemptions_total fairness_yields_total fairness_resumes_total
worker redeliveries_total dlq_total{reason} worker_slots{state}
"""
# What there is besides, and why.
ADDITIONS = {
    "edge": {
        "audit_lost_total": "an audit that loses events must be noticed",
        "batch_lines_total": "what becomes of offline batches",
        "config_reloads_total": "a configuration that was not taken must be noticed",
        "manifest_errors_total": "a manifest that was not taken must be noticed",
        "manifest_ok": "the same, while it lasts",
        "queue_in_hand": "what of a queue runs",
        "broker_up": "alerts on a broker that is away",
        "guardrail_decisions_total": "a policy engine that fails must be noticed",
        "issuer_requests_total": "an issuer that does not give its keys must be noticed",
        "live_calls": "how full an edge is",
        "queue_prompt_tokens": "what the limit on tokens in a queue bounds",
        "slow_readers_total": "streams that were cut",
        "trace_spans_total": "traces that are lost must be noticed",
        "workers": "alerts on a model that nobody serves",
    },
    "worker": {
        "broker_up": "alerts on a broker that is away",
        "model_loads_total": "a model that does not load must be noticed",
        "prefix_evictions_total": "a cache that is too small",
        "step_seconds": "what a batch costs",
        "trace_spans_total": "traces that are lost must be noticed",
    },
}


def promised(where: str) -> dict[str, set[str]]:
    """Labels by name, as far as promised."""
    lines = [line.split() for line in CONTRACT.splitlines()]
    names = [name for line in lines if line and line[0] == where for name in line[1:]]
    parts = [re.fullmatch(r"(\w+)(?:\{(.*)\})?", name) for name in names]
    return {f"inferflux_{part[1]}": set((part[2] or "").split(",")) - {""} for part in parts if part}


def scrape_ports(observed: Observed) -> tuple[Scrape, Scrape]:
    """Of the edge and of a worker; neither asks for a key."""
    [listens] = observed.log(event="serving metrics")[-1:]
    worker = observed.stack.run["workers"][0]["metrics"]
    return Scrape(listens["url"]), Scrape(worker)


@pytest.mark.parametrize("where", ["edge", "worker"])
def test_the_families_are_those_that_are_promised(observed: Observed, where: str) -> None:
    fetch(f"{observed.stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 2})
    edge, worker = scrape_ports(observed)
    own = {name: family for name, family in edge.families.items() if not family.is_passed_on}
    families = own if where == "edge" else worker.families
    wanted = promised(where)
    additions = {f"inferflux_{name}" for name in ADDITIONS[where]}
    assert set(families) == set(wanted) | additions
    for name, labels in wanted.items():
        assert labels <= families[name].labels, name
    for family in families.values():
        assert len(family.help) > 4, family.name
        assert "tenant" not in family.labels


def test_the_edge_shows_its_workers_under_their_names(observed: Observed) -> None:
    ids = {worker["id"] for worker in observed.stack.run["workers"]}
    shown = until(lambda: shown_workers(observed, ids), "both workers are shown")
    assert set(shown.families) >= set(promised("edge")) | set(promised("worker"))
    for name in promised("worker"):
        assert "worker" in shown.families[name].labels, name
    with pytest.raises(urllib.error.HTTPError) as refusal:
        Scrape(f"{observed.stack.url}/metrics")
    refusal.value.close()
    assert refusal.value.code == 401


def shown_workers(observed: Observed, ids: set[str]) -> Scrape | None:
    shown = scrape_edge(observed.stack.url)
    return shown if shown.values("worker") == ids else None


def test_labels_are_bounded(observed: Observed) -> None:
    for model in ("x" * 60, "echo-2", "default"):
        try:
            fetch(f"{observed.stack.url}/v1/completions", body={"model": model, "prompt": "x", "max_tokens": 1})
        except urllib.error.HTTPError as error:
            error.close()
    shown = scrape_edge(observed.stack.url)
    assert shown.values("model") == {"echo", "unknown"}
    assert shown.values("priority") == {str(each) for each in PriorityClass}
    assert shown.values("code") <= {"ok", *map(str, ErrorCode)}


def test_latency_buckets_reach_up_to_minutes(observed: Observed) -> None:
    fetch(f"{observed.stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 2})
    shown = scrape_edge(observed.stack.url)
    for name in ("request_duration", "time_to_first_token", "queue_wait"):
        buckets = {
            float(sample.labels["le"]) for sample in shown.samples if sample.name == f"inferflux_{name}_seconds_bucket"
        }
        assert min(buckets) <= 0.05 and sorted(buckets)[-2] >= 300, name


def quiet(observed: Observed) -> Scrape | None:
    """The metrics, when nothing runs and both workers are there, and none that another test has killed."""
    shown = scrape_edge(observed.stack.url)
    busy = shown.total("inferflux_worker_slots", state="busy") + shown.total("inferflux_live_calls")
    free = shown.total("inferflux_worker_slots", state="free")
    known = (len(shown.values("worker")), shown.total("inferflux_workers", model="echo"))
    return shown if busy == 0 and free > 0 and known == (2, 2) else None


def test_counters_move_as_the_traffic_says(observed: Observed) -> None:
    before = until(lambda: quiet(observed), "nothing runs")
    body = {"model": "echo", "prompt": "counted", "ignore_eos": True, "max_tokens": 7}
    usages = [fetch(f"{observed.stack.url}/v1/completions", body=body)["usage"] for _ in range(3)]
    stream(observed, {**body, "max_tokens": 9})
    for wrong in ("nobody", "nobody-either"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            fetch(f"{observed.stack.url}/v1/models", key=wrong)
        refusal.value.close()
    computed = sum(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    after = until(lambda: moved(observed, before, tokens=3 * 7 + 9), "all is counted")
    completions = {"endpoint": "completions", "model": "echo"}
    assert increase(before, after, "inferflux_requests_total", code="ok", **completions) == 4
    assert increase(before, after, "inferflux_request_duration_seconds_count", **completions) == 4
    assert increase(before, after, "inferflux_time_to_first_token_seconds_count", model="echo") == 4
    assert increase(before, after, "inferflux_queue_wait_seconds_count", priority="normal") == 4
    assert increase(before, after, "inferflux_stream_tokens_total", model="echo") == 9
    assert increase(before, after, "inferflux_completion_tokens_total", model="echo") == 30
    assert increase(before, after, "inferflux_prompt_tokens_total", model="echo") >= computed
    assert increase(before, after, "inferflux_batch_size_count", model="echo") >= 9
    hits = increase(before, after, "inferflux_prefix_hits_total", model="echo")
    # One of an earlier call may be told only now.
    assert hits + increase(before, after, "inferflux_prefix_misses_total", model="echo") >= 4
    assert increase(before, after, "inferflux_auth_failures_total", reason="invalid_api_key") == 2
    assert after.total("inferflux_broker_up") == 3
    assert after.total("inferflux_workers", model="echo") == 2
    assert after.total("inferflux_queue_depth") == 0
    assert after.total("inferflux_trace_spans_total", outcome="exported") > 0
    for later in ("spec_chunks", "spec_chunks_accepted", "kv_offload_bytes", "fairness_preemptions", "dlq"):
        assert after.total(f"inferflux_{later}_total") == 0


def moved(observed: Observed, before: Scrape, tokens: int) -> Scrape | None:
    """The metrics, when so many more tokens have been counted and nothing runs."""
    after = quiet(observed)
    if after is None or increase(before, after, "inferflux_completion_tokens_total") < tokens:
        return None
    # The totals of an engine follow a moment later.
    names = ("inferflux_prefix_hits_total", "inferflux_prefix_misses_total")
    return after if sum(increase(before, after, name) for name in names) >= 4 else None


def stream(observed: Observed, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        f"{observed.stack.url}/v1/completions", data=json.dumps({**body, "stream": True}).encode()
    )
    request.add_header("Authorization", f"Bearer {KEY}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.read().endswith(b"[DONE]\n\n")


def test_openmetrics_leads_from_a_latency_to_its_trace(observed: Observed) -> None:
    trace_id = "1" * 32
    request = urllib.request.Request(
        f"{observed.stack.url}/v1/completions",
        data=json.dumps({"model": "echo", "prompt": "x", "max_tokens": 2}).encode(),
        headers={"traceparent": f"00-{trace_id}-{'2' * 16}-01", "content-type": "application/json"},
    )
    request.add_header("Authorization", f"Bearer {KEY}")
    urllib.request.urlopen(request, timeout=60).close()
    shown = Scrape(f"{observed.stack.url}/metrics", key=KEY, accept=OPENMETRICS)
    assert shown.content_type.startswith("application/openmetrics-text")
    exemplars = {
        (sample.name, sample.exemplar.labels["trace_id"]) for sample in shown.samples if sample.exemplar is not None
    }
    assert ("inferflux_time_to_first_token_seconds_bucket", trace_id) in exemplars
    assert ("inferflux_request_duration_seconds_bucket", trace_id) in exemplars
    assert shown.total("inferflux_worker_slots", state="free") > 0
