"""/v1/admin/policy"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.policy_types import PolicyView
from producer.policy.view import describe


@operation(summary="What is allowed, and where each rule comes from", scope=Scope.ADMIN, returns=PolicyView)
async def show_policy(request: Request) -> Response:
    services = services_of(request)
    return json_response(describe(services.policy.current, services.policy_store))
