"""/v1/admin/models"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.model_types import (
    AdminModel,
    AdminModelList,
    ChangeModel,
    DefaultModel,
    DefaultModelView,
    LoadModel,
    UnloadedModel,
)
from producer.edge.models import LoadOutcome
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.query_values import QueryValues
from producer.edge.services import Services
from schemas.control import ModelCard
from schemas.errors import ErrorCode, ServingError

_DEFAULT_WAIT_S = 300
_MAX_WAIT_S = 3600
_WRITE = (
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_PARAMETER,
    ErrorCode.UNKNOWN_PARAMETER,
    ErrorCode.PAYLOAD_TOO_LARGE,
    ErrorCode.BROKER_UNAVAILABLE,
    ErrorCode.AUDIT_UNAVAILABLE,
)
_LOAD = (*_WRITE, ErrorCode.MODEL_LOAD_FAILED)


@operation(
    summary="All models with source, options and state by worker, and how it stands with the manifest",
    scope=Scope.ADMIN,
    returns=AdminModelList,
)
async def list_admin_models(request: Request) -> Response:
    services = services_of(request)
    models, manifest = services.models, services.manifest.current
    cards = sorted(models.cards.values(), key=lambda card: (not card.default, card.id))
    return json_response(
        {
            "object": "list",
            "data": [models.describe_fully(card) for card in cards],
            "manifest": None if manifest is None else manifest.shown(),
        }
    )


@operation(
    summary="Load a model, or load it again: 202, or with ?wait=true when it is served or has failed",
    scope=Scope.ADMIN,
    body=LoadModel,
    returns=AdminModel,
    errors=_LOAD,
)
async def load_model(request: Request) -> Response:
    services, wait_s = services_of(request), _wait_s(request)
    body = await read_as(request, LoadModel)
    card = await services.model_changes.load(identity_of(request), body, context_of(request).request_id)
    return await _answer(services, card, wait_s)


@operation(
    summary="Change options of a model: 202, or with ?wait=true when it is served so or that has failed",
    scope=Scope.ADMIN,
    body=ChangeModel,
    returns=AdminModel,
    errors=(ErrorCode.MODEL_NOT_FOUND, *_LOAD),
)
async def change_model(request: Request) -> Response:
    services, wait_s, model_id = services_of(request), _wait_s(request), request.path_params["id"]
    services.model_changes.require(model_id)
    body = await read_as(request, ChangeModel)
    card = await services.model_changes.change(identity_of(request), model_id, body, context_of(request).request_id)
    return await _answer(services, card, wait_s)


@operation(
    summary="Unload a model; what is queued for it is still answered",
    scope=Scope.ADMIN,
    returns=UnloadedModel,
    errors=(
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.BROKER_UNAVAILABLE,
        ErrorCode.AUDIT_UNAVAILABLE,
    ),
)
async def unload_model(request: Request) -> Response:
    model_id = request.path_params["id"]
    changes = services_of(request).model_changes
    await changes.unload(identity_of(request), model_id, context_of(request).request_id)
    return json_response({"id": model_id, "object": "model", "deleted": True})


@operation(summary="Which model is the default", scope=Scope.ADMIN, returns=DefaultModelView)
async def show_default_model(request: Request) -> Response:
    return _default(services_of(request))


@operation(
    summary="Make a model the default",
    scope=Scope.ADMIN,
    body=DefaultModel,
    returns=DefaultModelView,
    errors=(ErrorCode.MODEL_NOT_FOUND, *_WRITE),
)
async def set_default_model(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, DefaultModel)
    await services.model_changes.set_default(identity_of(request), body.id, context_of(request).request_id)
    return _default(services)


def _wait_s(request: Request) -> int:
    """Seconds to wait for the outcome; 0 for not at all."""
    query = QueryValues(request, ("wait", "timeout"))
    limit_s = query.integer("timeout", _DEFAULT_WAIT_S, 1, _MAX_WAIT_S)
    return limit_s if query.choice("wait", ("true", "false")) == "true" else 0


async def _answer(services: Services, card: ModelCard, wait_s: int) -> Response:
    """202 while nobody knows yet what comes of it."""
    outcome = services.models.outcome(card) if not wait_s else await services.model_changes.wait(card, wait_s)
    if wait_s and outcome is LoadOutcome.FAILED:
        reasons = "; ".join(dict.fromkeys(services.models.failed(card.id).values()))
        raise ServingError(ErrorCode.MODEL_LOAD_FAILED, f"The model '{card.id}' does not load: {reasons}")
    known = services.models.cards.get(card.id, card)
    return json_response(services.models.describe_fully(known), status=200 if outcome is LoadOutcome.SERVED else 202)


def _default(services: Services) -> Response:
    card = services.model_changes.default
    return json_response({"object": "model.default", "id": None if card is None else card.id})
