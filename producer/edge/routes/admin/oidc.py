"""GET and PUT /v1/admin/oidc"""

from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.errors import invalid
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.oidc_types import OidcChange, OidcView
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.refusals import BODY_REFUSALS, POLICY_REFUSALS
from producer.edge.services import Services
from producer.edge.validation import refusal_of
from schemas.policy import OidcPolicy, PolicyDocument


@operation(summary="Whose tokens are taken, and what their claims mean", scope=Scope.ADMIN, returns=OidcView)
async def show_oidc(request: Request) -> Response:
    return _shown(services_of(request))


@operation(
    summary="Change whose tokens are taken, at all edges",
    scope=Scope.ADMIN,
    body=OidcChange,
    returns=OidcView,
    errors=(*BODY_REFUSALS, *POLICY_REFUSALS),
)
async def put_oidc(request: Request) -> Response:
    services = services_of(request)
    given = (await read_as(request, OidcChange)).given
    if not given:
        raise invalid(f"Nothing to change: give any of {', '.join(OidcChange.model_fields)}.")
    configured = services.config.oidc

    def change(document: PolicyDocument) -> PolicyDocument:
        return document.model_copy(update={"oidc": changed(document.oidc or configured, given)})

    await services.policy_store.change(
        identity_of(request),
        "oidc.set",
        services.lockout.guarded(change),
        target=", ".join(sorted(given)),
        request_id=context_of(request).request_id,
    )
    return _shown(services)


def changed(policy: OidcPolicy | None, given: dict[str, Any]) -> OidcPolicy:
    """The policy with what is given, checked as that of the file is. Raises ServingError (400) naming the field."""
    before = policy.model_dump() if policy is not None else {}
    try:
        return OidcPolicy.model_validate({**before, **given})
    except ValidationError as error:
        raise refusal_of(error, OidcPolicy) from None


def _shown(services: Services) -> Response:
    policy = services.policy.current
    oidc = policy.oidc
    return json_response(
        {
            "object": "oidc",
            "source": policy.sources["oidc"],
            "enabled": oidc is not None,
            "policy": None if oidc is None else oidc.model_dump(mode="json"),
        }
    )
