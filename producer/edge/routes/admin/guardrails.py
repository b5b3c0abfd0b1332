"""GET and PUT /v1/admin/guardrails"""

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.body import read_json
from producer.edge.context import context_of, identity_of
from producer.edge.errors import invalid
from producer.edge.guard import services_of
from producer.edge.guardrails_types import GuardrailsChange, GuardrailsView
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.services import Services
from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.rules import check_guardrails, prepare_texts
from schemas.errors import ErrorCode, ServingError
from schemas.policy import GuardrailsPolicy, PolicyDocument


@operation(summary="What prompts and answers may not hold", scope=Scope.ADMIN, returns=GuardrailsView)
async def show_guardrails(request: Request) -> Response:
    return _shown(services_of(request))


@operation(
    summary="Change the guardrails of all edges",
    scope=Scope.ADMIN,
    body=GuardrailsChange,
    returns=GuardrailsView,
    errors=(
        ErrorCode.INVALID_JSON,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.POLICY_UNAVAILABLE,
        ErrorCode.AUDIT_UNAVAILABLE,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def put_guardrails(request: Request) -> Response:
    services = services_of(request)
    values, _ = await read_json(request, services.config.max_body_bytes, services.config.body_timeout_s)
    given = _read(values)
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


def _read(values: dict[str, object]) -> dict[str, object]:
    """The fields that are to change, as the policy has them. Raises ServingError (400)."""
    try:
        change = GuardrailsChange.model_validate(values)
    except ValidationError as error:
        raise _invalid_field(error) from None
    given = change.model_dump(include=change.model_fields_set)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _invalid_field(error: ValidationError) -> ServingError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        known = ", ".join(GuardrailsChange.model_fields)
        return ServingError(ErrorCode.UNKNOWN_PARAMETER, f"There is no field '{field[:100]}'; there are {known}.")
    return invalid(f"'{field}' is not valid: {first['msg'][:1].lower()}{first['msg'][1:]}.", field)


def _shown(services: Services) -> Response:
    policy = services.policy.current
    value: GuardrailsPolicy = policy.guardrails
    return json_response(
        {"object": "guardrails", "source": policy.sources["guardrails"], **value.model_dump(mode="json")}
    )
