"""/v1/admin/rate_limit"""

from starlette.requests import Request
from starlette.responses import Response

from broker.errors import BrokerError
from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.errors import invalid
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.limit_types import LimitsChange, LimitsView, UseList
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.refusals import BODY_REFUSALS, POLICY_REFUSALS
from producer.limits.charge import not_counted
from producer.limits.limiter import Use
from producer.policy.effective import EffectivePolicy
from schemas.errors import ErrorCode
from schemas.policy import LimitSet, LimitsPolicy, PolicyDocument


@operation(summary="The limits of keys, tenants and models", scope=Scope.ADMIN, returns=LimitsView)
async def show_rate_limit(request: Request) -> Response:
    return json_response(_view(services_of(request).policy.current))


@operation(
    summary="Change limits; what is absent stays",
    scope=Scope.ADMIN,
    body=LimitsChange,
    returns=LimitsView,
    errors=(*BODY_REFUSALS, *POLICY_REFUSALS),
)
async def set_rate_limit(request: Request) -> Response:
    services = services_of(request)
    change = await read_as(request, LimitsChange)
    if not change.model_fields_set:
        raise invalid(f"Nothing to change: give any of {', '.join(LimitsChange.model_fields)}.")
    configured = services.policy.config.limits

    def apply(document: PolicyDocument) -> PolicyDocument:
        limits = document.limits if document.limits is not None else configured
        return document.model_copy(update={"limits": changed(limits, change)})

    await services.policy_store.change(
        identity_of(request),
        "rate_limit.set",
        apply,
        target=", ".join(sorted(change.model_fields_set)),
        request_id=context_of(request).request_id,
    )
    return json_response(_view(services.policy.current))


@operation(
    summary="What is used of each limit at this moment",
    scope=Scope.ADMIN,
    returns=UseList,
    errors=(ErrorCode.BROKER_UNAVAILABLE,),
)
async def show_use(request: Request) -> Response:
    try:
        uses = await services_of(request).limiter.uses()
    except BrokerError as error:
        raise not_counted(error) from error
    return json_response({"object": "list", "data": [_use(use) for use in uses]})


def changed(limits: LimitsPolicy, change: LimitsChange) -> LimitsPolicy:
    """The limits with what the change names. Pure."""
    given = change.model_dump(exclude_none=True, exclude={"tenants", "models"})
    return LimitsPolicy(
        per_key=limits.per_key.model_copy(update=given),
        tenants=_merged(limits.tenants, change.tenants),
        models=_merged(limits.models, change.models),
    )


def _merged(limits: dict[str, LimitSet], change: dict[str, LimitSet | None] | None) -> dict[str, LimitSet]:
    merged = {**limits, **(change or {})}
    return {name: limit for name, limit in merged.items() if limit is not None}


def _view(policy: EffectivePolicy) -> dict[str, object]:
    limits = policy.limits.model_dump()
    return {
        "object": "rate_limit",
        "source": policy.sources["limits"],
        **limits["per_key"],
        "tenants": limits["tenants"],
        "models": limits["models"],
    }


def _use(use: Use) -> dict[str, object]:
    return {
        "object": "rate_limit.use",
        "who": use.who,
        "name": use.name,
        "limit_name": use.limit_name,
        "limit": use.limit,
        "used": use.used,
    }
