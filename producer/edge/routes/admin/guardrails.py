"""GET and PUT /v1/admin/guardrails"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.errors import invalid
from producer.edge.guard import services_of
from producer.edge.guardrails_types import GuardrailsChange, GuardrailsView
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.refusals import BODY_REFUSALS, POLICY_REFUSALS
from producer.edge.services import Services
from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.rules import check_guardrails, prepare_texts
from schemas.policy import GuardrailsPolicy, PolicyDocument


@operation(summary="What prompts and answers may not hold", scope=Scope.ADMIN, returns=GuardrailsView)
async def show_guardrails(request: Request) -> Response:
    return _shown(services_of(request))


@operation(
    summary="Change the guardrails of all edges",
    scope=Scope.ADMIN,
    body=GuardrailsChange,
    returns=GuardrailsView,
    errors=(*BODY_REFUSALS, *POLICY_REFUSALS),
)
async def put_guardrails(request: Request) -> Response:
    services = services_of(request)
    given = (await read_as(request, GuardrailsChange)).given
    configured = services.policy.config.guardrails

    def change(document: PolicyDocument) -> PolicyDocument:
        policy = (document.guardrails or configured).model_copy(update=given)
        try:
            check_guardrails(policy)
        except InvalidGuardrails as error:
            raise invalid(f"'{error.field}' cannot be used: {error}.", error.field) from None
        return document.model_copy(update={"guardrails": policy})

    await prepare_texts((services.policy_store.document.guardrails or configured).model_copy(update=given))
    await services.policy_store.change(
        identity_of(request), "guardrails.set", change, request_id=context_of(request).request_id
    )
    return _shown(services)


def _shown(services: Services) -> Response:
    policy = services.policy.current
    value: GuardrailsPolicy = policy.guardrails
    return json_response(
        {"object": "guardrails", "source": policy.sources["guardrails"], **value.model_dump(mode="json")}
    )
