"""GET and PUT /v1/admin/routing"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.errors import invalid
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.models import DEFAULT, Models
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.refusals import BODY_REFUSALS, POLICY_REFUSALS
from producer.edge.routing_types import RoutingChange, RoutingView
from producer.edge.services import Services
from schemas.errors import ErrorCode, ServingError
from schemas.policy import PolicyDocument
from schemas.routing import MAX_ALIASES, RoutingPolicy


@operation(summary="The default model, and other names of models", scope=Scope.ADMIN, returns=RoutingView)
async def show_routing(request: Request) -> Response:
    return _shown(services_of(request))


@operation(
    summary="Change what names of models stand for, at all edges",
    scope=Scope.ADMIN,
    body=RoutingChange,
    returns=RoutingView,
    errors=(ErrorCode.MODEL_NOT_FOUND, *BODY_REFUSALS, *POLICY_REFUSALS),
)
async def put_routing(request: Request) -> Response:
    services = services_of(request)
    change = await read_as(request, RoutingChange)
    _check(services.models, change)

    def apply(document: PolicyDocument) -> PolicyDocument:
        return document.model_copy(update={"routing": changed(document.routing or RoutingPolicy(), change)})

    await services.policy_store.change(
        identity_of(request), "routing.set", apply, request_id=context_of(request).request_id
    )
    return _shown(services)


def changed(routing: RoutingPolicy, change: RoutingChange) -> RoutingPolicy:
    """The routing with what the change names. Pure. Raises ServingError (400) when there are too many names."""
    merged = {**routing.aliases, **(change.aliases or {})}
    aliases = {name: model for name, model in merged.items() if model is not None}
    if len(aliases) > MAX_ALIASES:
        raise invalid(f"There can be {MAX_ALIASES} aliases at most.", "aliases")
    names_default = "default_model" in change.model_fields_set
    return RoutingPolicy(
        default_model=change.default_model if names_default else routing.default_model, aliases=aliases
    )


def _check(models: Models, change: RoutingChange) -> None:
    """Names stand for models that there are, by id, and hide none of them. Raises ServingError (400, 404)."""
    if change.default_model is not None:
        _require(models, change.default_model, "default_model")
    for name, model in (change.aliases or {}).items():
        if model is None:
            continue
        where = f"aliases.{name}"
        if name == DEFAULT:
            raise invalid(f"'{DEFAULT}' always means the default model: set 'default_model'.", where)
        if name in models.cards:
            raise invalid(f"'{name}' is the id of a model, and so no alias of another.", where)
        _require(models, model, where)


def _require(models: Models, model_id: str, param: str) -> None:
    if model_id not in models.cards:
        raise ServingError(
            ErrorCode.MODEL_NOT_FOUND, f"'{param}': there is no model with the id '{model_id}'.", param=param
        )


def _shown(services: Services) -> Response:
    policy = services.policy.current
    return json_response({"object": "routing", "source": policy.sources["routing"], **policy.routing.model_dump()})
