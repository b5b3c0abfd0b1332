"""What programs need to know to get a token for this service: open to all."""

from starlette.requests import Request
from starlette.responses import Response

from producer.auth.oidc.resource import PATH, resource_of
from producer.edge.entry import not_found
from producer.edge.errors import invalid
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.openai_types import ProtectedResource
from producer.edge.operation import operation
from schemas.errors import ErrorCode


@operation(
    summary="Whose tokens are taken (RFC 9728)",
    returns=ProtectedResource,
    errors=(ErrorCode.ROUTE_NOT_FOUND, ErrorCode.INVALID_PARAMETER),
)
async def protected_resource(request: Request) -> Response:
    """404 where only API keys are taken."""
    policy = services_of(request).oidc.policy
    if policy is None:
        raise not_found(PATH)
    resource = resource_of(policy, request.url.scheme, request.headers.get("host"))
    if resource is None:
        raise invalid("The Host header does not name a host.", "Host")
    return json_response(
        {
            "resource": resource,
            "authorization_servers": [policy.issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": list(policy.login_scopes),
            "inferflux_audience": policy.audience,
            "inferflux_client_id": policy.client_id,
        }
    )
