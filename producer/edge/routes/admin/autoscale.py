"""GET /v1/admin/autoscale"""

from starlette.requests import Request
from starlette.responses import Response

from producer.autoscale.scaler import Hint
from producer.config import AutoscaleConfig, Scope
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.query_values import QueryValues
from producer.edge.scaling_types import ScalingList
from schemas.errors import ErrorCode


@operation(
    summary="How many workers each model should have, and why; with `model` one of them",
    scope=Scope.ADMIN,
    returns=ScalingList,
    errors=(
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def show_autoscale(request: Request) -> Response:
    scaling = services_of(request).scaling
    name = QueryValues(request, ("model",)).text("model")
    if name is None:
        hints = await scaling.hints()
    else:
        card = services_of(request).models.require(name)
        hints = {card.id: await scaling.hint(card.id)}
    data = [_view(model, hint, scaling.config) for model, hint in sorted(hints.items())]
    return json_response({"object": "list", "data": data})


def _view(model: str, hint: Hint, config: AutoscaleConfig) -> dict[str, object]:
    return {
        "object": "autoscale",
        "model": model,
        "desired": hint.desired,
        "current": hint.facts.workers,
        "min_workers": config.min_workers,
        "max_workers": config.max_workers,
        "idle_to_zero_s": config.idle_to_zero_s,
        "reason": str(hint.reason),
        "inputs": _inputs(hint, config),
    }


def _inputs(hint: Hint, config: AutoscaleConfig) -> dict[str, object]:
    load, facts = hint.load, hint.facts
    per_worker = None if load.slots_per_worker is None else load.slots_per_worker / load.service_s
    return {
        "queue": {
            str(priority): {
                "waiting": each.waiting,
                "running": each.running,
                "oldest_age_s": round(each.oldest_age_s, 3),
            }
            for priority, each in facts.classes.items()
        },
        "waiting_tokens": facts.waiting_tokens,
        "oldest_age_s": round(facts.oldest_age_s, 3),
        "refused_per_minute": facts.refused,
        "arrivals_per_s": round(load.arrivals_per_s, 4),
        "service_s": round(load.service_s, 4),
        "slots_per_worker": load.slots_per_worker,
        "served_per_s_per_worker": None if per_worker is None else round(per_worker, 4),
        "target_queue_wait_s": config.target_queue_wait_s,
    }
