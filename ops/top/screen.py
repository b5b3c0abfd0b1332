"""A report of `inferctl top` for people: lines, and tables as lists of cells. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

QUEUE_COLUMNS = ("model", "class", "waiting", "in hand", "oldest")
WORKER_COLUMNS = ("worker", "model", "backend", "slots used", "tokens/s", "prompt tokens/s", "batch")
MODEL_COLUMNS = ("model", "state", "workers", "wanted", "requests/s", "first token")


class Grid(NamedTuple):
    """A table; its numbers begin behind `num_names` columns of names."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    num_names: int


def heading(report: Mapping[str, Any], where: str) -> list[str]:
    """Two lines or three."""
    requests, ttft, wait = report["requests"], report["ttft_s"], report["queue_wait_s"]
    errors = ", ".join(f"{code} {_number(rate)}" for code, rate in requests["errors"].items())
    lines = [
        f"{where}  requests/s {_number(requests['per_s'])}  live {_number(requests['live'])}  "
        f"tokens/s {_number(requests['tokens_per_s'])}  errors/s {_number(requests['errors_per_s'])}"
        + (f" ({errors})" if errors else ""),
        f"first token p50 {_seconds(ttft['p50'])}  p95 {_seconds(ttft['p95'])}  "
        f"wait p50 {_seconds(wait['p50'])}  p95 {_seconds(wait['p95'])}  over {report['interval_s']:.1f} s",
    ]
    return [*lines, report["missing"]] if report["missing"] else lines


def grids(report: Mapping[str, Any]) -> list[Grid]:
    models = [
        (
            f"{each['model']} (default)" if each["default"] else each["model"],
            "ready" if each["ready"] else "no worker",
            _number(each["workers"]),
            _number(each["workers_desired"]),
            _number(each["requests_per_s"]),
            _seconds(each["ttft_p50_s"]),
        )
        for each in report["models"]
    ]
    queues = [
        (
            each["model"],
            each["priority"],
            _number(each["waiting"]),
            _number(each["in_hand"]),
            _seconds(each["oldest_age_s"]) if each["waiting"] else "-",
        )
        for each in report["queues"]
    ]
    workers = [
        (
            each["worker"],
            each["model"],
            each["backend"],
            f"{_number(each['slots_used'])}/{each['slots']}",
            _number(each["tokens_per_s"]),
            _number(each["prompt_tokens_per_s"]),
            _number(each["batch_size"]),
        )
        for each in report["workers"]
    ]
    return [Grid(MODEL_COLUMNS, models, 2), Grid(QUEUE_COLUMNS, queues, 2), Grid(WORKER_COLUMNS, workers, 3)]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"
