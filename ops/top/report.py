"""What `inferctl top` tells of two readings, as JSON has it. Pure."""

from collections.abc import Iterable
from typing import Any

from ops.top.growth import Growth
from ops.top.reading import Reading, Sample

CLASSES = ("high", "normal", "low", "batch")
OK = "ok"


def report(before: Reading, after: Reading) -> dict[str, Any]:
    """Rates are of the time between the readings. What the key may not see is null or empty, and `missing` says so."""
    growth = Growth(before, after)
    return {
        "time": round(after.time, 3),
        "interval_s": round(growth.seconds, 3),
        "requests": _requests(growth, after),
        "ttft_s": _latency(growth, "time_to_first_token_seconds"),
        "queue_wait_s": _latency(growth, "queue_wait_seconds"),
        "queues": _queues(after),
        "models": [_model(model, growth, after) for model in after.models],
        "workers": _workers(growth, after),
        "missing": after.missing or None,
    }


def _requests(growth: Growth, after: Reading) -> dict[str, Any]:
    if not after.samples:
        return {"per_s": None, "live": None, "tokens_per_s": None, "errors_per_s": None, "errors": {}}
    codes = growth.by("requests_total", "code")
    errors = {code: count / growth.seconds for code, count in codes.items() if code != OK and count > 0}
    return {
        "per_s": _rounded(sum(codes.values()) / growth.seconds),
        "live": int(_sum(after.of("live_calls"))),
        "tokens_per_s": _rounded(growth.rate("stream_tokens_total")),
        "errors_per_s": _rounded(sum(errors.values())),
        "errors": {code: _rounded(rate) for code, rate in sorted(errors.items())},
    }


def _latency(growth: Growth, histogram: str) -> dict[str, float | None]:
    return {
        "mean": _rounded(growth.mean(histogram)),
        "p50": _rounded(growth.quantile(histogram, 0.5)),
        "p95": _rounded(growth.quantile(histogram, 0.95)),
    }


def _queues(after: Reading) -> list[dict[str, Any]]:
    """Every model and class that the fleet has a queue for, highest class first."""
    places = {(sample.labels["model"], sample.labels["priority"]) for sample in after.of("queue_depth")}
    return [
        {
            "model": model,
            "priority": priority,
            "waiting": int(_of_queue(after, "queue_depth", model, priority) or 0),
            "in_hand": _whole(_of_queue(after, "queue_in_hand", model, priority)),
            "oldest_age_s": _rounded(_of_queue(after, "queue_oldest_age_seconds", model, priority)),
        }
        for model, priority in sorted(places, key=lambda place: (place[0], _order(place[1])))
    ]


def _model(model: dict[str, Any], growth: Growth, after: Reading) -> dict[str, Any]:
    name, backends = str(model["id"]), model.get("backends") or []

    def is_of(sample: Sample) -> bool:
        return sample.labels.get("model") == name

    return {
        "model": name,
        "default": bool(model.get("default")),
        "ready": bool(model.get("ready")),
        "workers": len(backends),
        "workers_desired": _whole(_first(after.of("workers_desired"), is_of)),
        "slots": sum(entry["slots"] for entry in backends),
        "requests_per_s": _rounded(growth.rate("requests_total", is_of)) if after.samples else None,
        "ttft_p50_s": _rounded(growth.quantile("time_to_first_token_seconds", 0.5, is_of)),
    }


def _workers(growth: Growth, after: Reading) -> list[dict[str, Any]]:
    """Each worker and model of it. Those of other machines export their own metrics, and show their slots alone."""
    return [
        _worker(entry, model["id"], growth, after)
        for model in after.models
        for entry in sorted(model.get("backends") or [], key=lambda entry: str(entry["worker"]))
    ]


def _worker(entry: dict[str, Any], model: str, growth: Growth, after: Reading) -> dict[str, Any]:
    worker = entry["worker"]

    def is_its(sample: Sample) -> bool:
        return sample.labels.get("worker") == worker and sample.labels.get("model") == model

    busy = _first(after.of("worker_slots"), lambda each: is_its(each) and each.labels["state"] == "busy")
    is_seen = any(map(is_its, after.of("completion_tokens_total")))
    return {
        "worker": worker,
        "model": model,
        "backend": entry["backend"],
        "slots": entry["slots"],
        "slots_used": _whole(busy),
        "tokens_per_s": _rounded(growth.rate("completion_tokens_total", is_its)) if is_seen else None,
        "prompt_tokens_per_s": _rounded(growth.rate("prompt_tokens_total", is_its)) if is_seen else None,
        "batch_size": _rounded(growth.mean("batch_size", is_its)),
    }


def _of_queue(after: Reading, name: str, model: str, priority: str) -> float | None:
    return _first(
        after.of(name), lambda each: each.labels.get("model") == model and each.labels.get("priority") == priority
    )


def _first(samples: Iterable[Sample], keep: Any) -> float | None:
    return next((sample.value for sample in samples if keep(sample)), None)


def _sum(samples: Iterable[Sample]) -> float:
    return sum(sample.value for sample in samples)


def _order(priority: str) -> int:
    return CLASSES.index(priority) if priority in CLASSES else len(CLASSES)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
