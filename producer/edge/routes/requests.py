"""DELETE /v1/requests/{id}"""

from starlette.requests import Request
from starlette.responses import Response

from broker.subjects import is_valid_id
from producer.config import Scope
from producer.edge.context import identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.openai_types import CancelledRequest
from producer.edge.operation import operation
from schemas.errors import ErrorCode, ServingError

_PREFIXES = ("chatcmpl-", "cmpl-")


@operation(
    summary="Cancel a request of one's own",
    scope=Scope.GENERATE,
    returns=CancelledRequest,
    errors=(ErrorCode.REQUEST_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def cancel_request(request: Request) -> Response:
    request_id = request.path_params["id"]
    for prefix in _PREFIXES:
        request_id = request_id.removeprefix(prefix)
    if not is_valid_id(request_id):
        raise ServingError(ErrorCode.REQUEST_NOT_FOUND, "There is no such request of yours.")
    cancelled = await services_of(request).joining.cancel(request_id, identity_of(request))
    return json_response({"id": request_id, "object": "request", "cancelled": cancelled})
