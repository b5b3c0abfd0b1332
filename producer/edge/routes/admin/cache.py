"""/v1/admin/cache"""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.fleet import Fleet
from producer.edge.fleet_types import (
    ClearCacheBody,
    ClearedList,
    WarmCacheBody,
    WarmedList,
    WorkerCacheList,
)
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.messages import to_prompt
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.recorded import record
from producer.edge.routes.query_values import QueryValues
from producer.edge.services import Services
from schemas.errors import ErrorCode, ServingError
from schemas.worker_orders import ClearCache, Cleared, WarmCache, Warmed

# A pass that runs comes first.
_CLEAR_S = 20.0
# A worker's answer is taken for two minutes at most.
_WARM_S = 110.0
_INPUT = (ErrorCode.INVALID_PARAMETER, ErrorCode.UNKNOWN_PARAMETER, ErrorCode.MODEL_NOT_FOUND)


@operation(
    summary="Cached KV of each worker and model: model, worker",
    scope=Scope.ADMIN,
    returns=WorkerCacheList,
    errors=(*_INPUT, ErrorCode.WORKER_NOT_FOUND),
)
async def show_cache(request: Request) -> Response:
    values = QueryValues(request, ("model", "worker"))
    services = services_of(request)
    model = _model_id(services, values.text("model"))
    members = await services.fleet.members(_workers(services.fleet, model, values.text("worker")))
    data = [
        {"object": "cache", "worker": member.advert.id, "model": each.id, **each.cache.model_dump()}
        for member in members
        if member.status is not None
        for each in member.status.models
        if model in (None, each.id)
    ]
    unanswered = [member.advert.id for member in members if member.status is None]
    return json_response({"object": "list", "data": data, "unanswered": unanswered})


@operation(
    summary="Drop cached KV that is not in use",
    scope=Scope.ADMIN,
    body=ClearCacheBody,
    returns=ClearedList,
    errors=(*_INPUT, ErrorCode.WORKER_NOT_FOUND, ErrorCode.AUDIT_UNAVAILABLE),
)
async def clear_cache(request: Request) -> Response:
    services = services_of(request)
    body = await read_as(request, ClearCacheBody, is_optional=True)
    model = _model_id(services, body.model)
    workers = _workers(services.fleet, model, body.worker)
    await record(request, "cache.clear", body.worker or "", model=model or "")
    answers = await asyncio.gather(
        *(services.fleet.order(each, ClearCache(model=model), Cleared, _CLEAR_S) for each in workers),
        return_exceptions=True,
    )
    data: list[dict[str, Any]] = []
    unanswered = []
    for worker, answer in zip(workers, answers, strict=True):
        if isinstance(answer, ServingError):
            unanswered.append(worker)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            data += [
                {"worker": worker, "model": each.id, "entries": each.entries, "tokens": each.tokens}
                for each in answer.models
            ]
    return json_response(
        {
            "object": "cache.cleared",
            "entries": sum(each["entries"] for each in data),
            "tokens": sum(each["tokens"] for each in data),
            "data": data,
            "unanswered": unanswered,
        }
    )


@operation(
    summary="Compute the beginning of later prompts on every worker of a model",
    scope=Scope.ADMIN,
    body=WarmCacheBody,
    returns=WarmedList,
    errors=(
        *_INPUT,
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        ErrorCode.NO_CHAT_TEMPLATE,
        ErrorCode.UNSUPPORTED_PARAMETER,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.NO_WORKER,
        ErrorCode.AUDIT_UNAVAILABLE,
    ),
)
async def warm_cache(request: Request) -> Response:
    """The error of the first worker when none of them has it in the end."""
    services = services_of(request)
    body = await read_as(request, WarmCacheBody)
    model = services.models.require(body.model).id
    workers = services.fleet.serving(model)
    if not workers:
        raise ServingError(ErrorCode.NO_WORKER, f"No worker serves the model '{model}' now.", retryable=True)
    chat = to_prompt(body.messages, None, None) if body.messages is not None else None
    order = WarmCache(
        model=model,
        text=body.text,
        messages=chat.messages if chat is not None else (),
        continue_last=chat is not None and chat.continue_last,
        tenant=body.tenant or "default",
    )
    await record(request, "cache.warm", model, workers=len(workers), tenant=order.tenant)
    answers = await asyncio.gather(
        *(services.fleet.order(each, order, Warmed, _WARM_S) for each in workers), return_exceptions=True
    )
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if len(failures) == len(answers) or any(not isinstance(each, ServingError) for each in failures):
        raise failures[0]
    data = [_warmed(worker, answer) for worker, answer in zip(workers, answers, strict=True)]
    return json_response({"object": "cache.warmed", "model": model, "data": data})


def _warmed(worker: str, answer: Warmed | BaseException) -> dict[str, Any]:
    if isinstance(answer, BaseException):
        nothing = dict.fromkeys(("prompt_tokens", "computed_tokens", "cached_tokens"))
        return {"worker": worker, **nothing, "error": str(answer)}
    return {
        "worker": worker,
        "prompt_tokens": answer.prompt_tokens,
        "computed_tokens": answer.prompt_tokens - answer.cached_tokens,
        "cached_tokens": answer.cached_tokens,
        "error": None,
    }


def _model_id(services: Services, name: str | None) -> str | None:
    """Of an id or alias; None for none. Raises ServingError (404)."""
    return None if name is None else services.models.require(name).id


def _workers(fleet: Fleet, model: str | None, worker: str | None) -> Sequence[str]:
    """Ids of those that are meant. Raises ServingError (404)."""
    if worker is None:
        return fleet.ids() if model is None else fleet.serving(model)
    advert = fleet.advert(worker)
    if model is not None and all(served.id != model for served in advert.models):
        raise ServingError(
            ErrorCode.MODEL_NOT_FOUND, f"The worker '{worker}' does not serve the model '{model}'.", param="model"
        )
    return (worker,)
