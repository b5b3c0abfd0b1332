"""The `ready` block: all a newcomer needs to know, and a line to copy."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def ready_block(
    *,
    edge_url: str | None,
    key: str,
    broker_url: str,
    workers: Sequence[dict[str, Any]],
    unserved: Mapping[str, str],
) -> str:
    """What `up` prints once everything serves that can.

    `workers` are their ready facts, `unserved` models with the reason; `key` is fit to be shown.
    """
    models: dict[str, dict[str, Any]] = {}
    for worker in workers:
        for model in worker["models"]:
            models.setdefault(model["id"], {**model, "slots": 0})["slots"] += model["slots"]
    lines = [f"ready    {edge_url}/v1" if edge_url else "ready    (no edge)", f"broker   {broker_url}"]
    for model in models.values():
        lines.append(f"model    {model['id']} on {model['backend']} ({model['reason']})")
        threads = f", threads {model['threads']}" if model["threads"] is not None else ""
        lines.append(f"         slots {model['slots']}, context {model['context']}{threads}")
    lines += [f"model    {model_id} is not served: {reason}" for model_id, reason in unserved.items()]
    if edge_url is not None:
        lines += [f"docs     {edge_url}/docs", "try      " + _curl(edge_url, key)]
    return "\n".join(lines)


def _curl(edge_url: str, key: str) -> str:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    body = json.dumps({"messages": messages, "temperature": 0, "stream": True})
    return (
        f"curl -N {edge_url}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-H \"Authorization: Bearer {key}\" -d '{body}'"
    )
