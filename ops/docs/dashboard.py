"""ops/monitoring/grafana/dashboards/overview.json: a Grafana dashboard from a list of its panels."""

import json
from typing import Any, NamedTuple

_MODEL = 'model=~"$model"'
_WIDTH, _HEIGHT = 8, 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    expression: str
    legend: str


class Panel(NamedTuple):
    title: str
    unit: str
    queries: tuple[Query, ...]


def _rate(family: str, legend: str, *, by: str = "model", labels: str = _MODEL) -> Query:
    return Query(f"sum by ({by}) (rate(inferflux_{family}_total{{{labels}}}[$__rate_interval]))", legend)


def _quantile(share: float, family: str, by: str = "model") -> Query:
    buckets = f"rate(inferflux_{family}_bucket{{{_MODEL}}}[$__rate_interval])"
    expression = f"histogram_quantile({share}, sum by ({by}, le) ({buckets}))"
    return Query(expression, f"{{{{{by}}}}} p{share * 100:g}")


def _quantiles(family: str) -> tuple[Query, ...]:
    return tuple(_quantile(share, family) for share in (0.5, 0.95, 0.99))


def _state(family: str, by: str, how: str = "sum", legend: str | None = None) -> Query:
    shown = legend or " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return Query(f"{how} by ({by}) (inferflux_{family}{{{_MODEL}}})", shown)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Traffic": (
        Panel("Requests", "reqps", (_rate("requests", "{{model}} {{code}}", by="model, code"),)),
        Panel(
            "Tokens",
            "short",
            (_rate("completion_tokens", "{{model}} generated"), _rate("prompt_tokens", "{{model}} prompt")),
        ),
        Panel("Requests in hand of workers", "short", (_state("queue_in_hand", "model", "max"),)),
        Panel("Calls in the edges", "short", (Query("sum by (instance) (inferflux_live_calls)", "{{instance}}"),)),
    ),
    "Latency": (
        Panel("Time to first token", "s", _quantiles("time_to_first_token_seconds")),
        Panel("Between tokens", "s", _quantiles("inter_token_seconds")),
        Panel("Whole requests", "s", _quantiles("request_duration_seconds")),
    ),
    "Queue": (
        Panel("Waiting", "short", (_state("queue_depth", "model, priority", "max"),)),
        Panel("Longest wait", "s", (_state("queue_oldest_age_seconds", "model, priority", "max"),)),
        Panel("Wait of those that started", "s", _quantiles("queue_wait_seconds")),
        Panel("Prompt tokens that wait", "short", (_state("queue_prompt_tokens", "model, priority", "max"),)),
        Panel("Delivered again", "ops", (_rate("redeliveries", "{{model}}"),)),
        Panel("Given up", "ops", (_rate("dlq", "{{model}} {{reason}}", by="model, reason"),)),
    ),
    "Workers": (
        Panel(
            "Workers",
            "short",
            (
                _state("workers", "model", "max", "{{model}} live"),
                _state("workers_desired", "model", "max", "{{model}} desired"),
            ),
        ),
        Panel("Sequences", "short", (_state("worker_slots", "model, state"),)),
        Panel("Broker in reach", "short", (Query("min by (instance) (inferflux_broker_up)", "{{instance}}"),)),
    ),
    "Engine, KV and prefix cache": (
        Panel("Sequences in a step", "short", (_quantile(0.5, "batch_size"), _quantile(0.95, "batch_size"))),
        Panel("Steps", "s", (_quantile(0.5, "step_seconds"), _quantile(0.95, "step_seconds"))),
        Panel("KV, in tokens", "short", (_state("kv_pages", "model, state"),)),
        Panel(
            "Prompts that began like an earlier one",
            "percentunit",
            (
                Query(
                    f"sum by (model) (rate(inferflux_prefix_hits_total{{{_MODEL}}}[$__rate_interval]))"
                    f" / (sum by (model) (rate(inferflux_prefix_hits_total{{{_MODEL}}}[$__rate_interval]))"
                    f" + sum by (model) (rate(inferflux_prefix_misses_total{{{_MODEL}}}[$__rate_interval])))",
                    "{{model}}",
                ),
            ),
        ),
        Panel("Prompt tokens that were there", "short", (_rate("prefix_matched_tokens", "{{model}}"),)),
        Panel("KV that had to go", "ops", (_rate("prefix_evictions", "{{model}}"),)),
        Panel("Loads of models", "ops", (_rate("model_loads", "{{model}} {{result}}", by="model, result"),)),
        Panel(
            "Places given up",
            "ops",
            (
                _rate("fairness_preemptions", "{{model}} preempted"),
                _rate("fairness_yields", "{{model}} timeslice over"),
                _rate("fairness_resumes", "{{model}} gone on"),
            ),
        ),
        Panel(
            "Drafts",
            "ops",
            (
                _rate("spec_chunks", "{{model}} proposed"),
                _rate("spec_chunks_accepted", "{{model}} accepted"),
                _rate("spec_tokens_reused", "{{model}} tokens"),
            ),
        ),
        Panel(
            "KV moved between tiers",
            "Bps",
            (_rate("kv_offload_bytes", "{{tier}} {{direction}}", by="tier, direction"),),
        ),
        Panel(
            "KV moved, in tokens", "short", (_rate("kv_offload_pages", "{{tier}} {{direction}}", by="tier, direction"),)
        ),
    ),
    "Trust": (
        Panel(
            "Refused by limits and guardrails",
            "ops",
            (
                _rate("rate_limited", "limits", by="job", labels=""),
                _rate("guardrail_blocks", "guardrails", by="job", labels=""),
            ),
        ),
        Panel(
            "Decisions of the policy", "ops", (_rate("guardrail_decisions", "{{outcome}}", by="outcome", labels=""),)
        ),
        Panel("Refused credentials", "ops", (_rate("auth_failures", "{{reason}}", by="reason", labels=""),)),
        Panel("Audit events lost", "ops", (_rate("audit_lost", "{{instance}}", by="instance", labels=""),)),
        Panel(
            "Configuration read again",
            "ops",
            (
                _rate("config_reloads", "{{result}}", by="result", labels=""),
                _rate("manifest_errors", "manifest not used", by="job", labels=""),
            ),
        ),
        Panel("Lines of batches", "ops", (_rate("batch_lines", "{{outcome}}", by="outcome", labels=""),)),
        Panel("Manifest in use", "short", (Query("min by (job) (inferflux_manifest_ok)", "{{job}}"),)),
        Panel("Questions to the issuer", "ops", (_rate("issuer_requests", "{{outcome}}", by="outcome", labels=""),)),
        Panel(
            "Streams cut, and spans",
            "ops",
            (
                _rate("slow_readers", "slow readers", by="job", labels=""),
                _rate("stream_tokens", "{{model}} tokens streamed"),
                _rate("trace_spans", "spans {{outcome}}", by="outcome", labels=""),
            ),
        ),
    ),
}


def dashboard() -> str:
    document = {
        "uid": "inferflux-overview",
        "title": "InferFlux",
        "tags": ["inferflux"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(),
    }
    return json.dumps(document, indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "model",
            "label": "Model",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": "label_values(inferflux_queue_depth, model)", "refId": "models"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": top, "w": 3 * _WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place})
        top += 1
        for number, panel in enumerate(row):
            place = {"x": number % 3 * _WIDTH, "y": top + number // 3 * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_panel(len(panels) + 1, panel, place))
        top += (len(row) + 2) // 3 * _HEIGHT
    return panels


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                "exemplar": "_bucket" in query.expression,
            }
            for index, query in enumerate(panel.queries)
        ],
    }
