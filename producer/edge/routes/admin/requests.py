"""/v1/admin/requests"""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from broker.in_flight import InFlight
from broker.subjects import is_valid_id
from producer.config import Scope
from producer.edge.guard import services_of
from producer.edge.in_flight import MAX_LISTED, Wanted
from producer.edge.in_flight_types import CancelledByAdministrator, InFlightList, InFlightView
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.admin.recorded import record
from producer.edge.routes.query_values import QueryValues
from schemas.errors import ErrorCode, ServingError

_PREFIXES = ("chatcmpl-", "cmpl-")


@operation(
    summary="Requests that wait or run, of all edges: model, tenant, state, limit",
    scope=Scope.ADMIN,
    returns=InFlightList,
    errors=(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def list_requests(request: Request) -> Response:
    services, values = services_of(request), QueryValues(request, ("model", "tenant", "state", "limit"))
    model = values.text("model")
    wanted = Wanted(
        model=None if model is None else services.models.require(model).id,
        tenant=values.text("tenant"),
        state=values.choice("state", ("queued", "running")),
        limit=values.integer("limit", 100, 1, MAX_LISTED),
    )
    found = await services.in_flight.find(wanted)
    return json_response(
        {"object": "list", "data": [_view(each) for each in found.requests], "truncated": found.is_truncated}
    )


@operation(
    summary="One request that waits or runs",
    scope=Scope.ADMIN,
    returns=InFlightView,
    errors=(ErrorCode.REQUEST_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def show_request(request: Request) -> Response:
    return json_response(_view(await services_of(request).in_flight.get(_request_id(request))))


@operation(
    summary="Cancel a request, whosever it is, with all prompts of its call",
    scope=Scope.ADMIN,
    returns=CancelledByAdministrator,
    errors=(ErrorCode.REQUEST_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE, ErrorCode.AUDIT_UNAVAILABLE),
)
async def cancel_anybodys_request(request: Request) -> Response:
    in_flight = services_of(request).in_flight
    call_id = await in_flight.require(_request_id(request))
    await record(request, "request.cancel", call_id)
    cancelled = await in_flight.cancel(call_id)
    return json_response({"object": "request", "id": call_id, "cancelled": cancelled})


def _view(found: InFlight) -> dict[str, Any]:
    queued = found.queued
    return {
        "object": "request",
        "id": queued.request_id,
        "model": queued.model,
        "priority": str(queued.priority),
        "tenant": queued.tenant,
        "owner": found.accepted.owner if found.accepted is not None else None,
        "edge": queued.edge,
        "state": "queued" if found.worker is None else "running",
        "worker": found.worker,
        "age_s": round(max(0.0, time.time() - queued.queued_at), 3),
        "tokens": found.num_tokens,
        "deadline": queued.deadline or None,
    }


def _request_id(request: Request) -> str:
    """With or without the prefix that it has in an answer. Raises ServingError (404)."""
    request_id: str = request.path_params["id"]
    for prefix in _PREFIXES:
        request_id = request_id.removeprefix(prefix)
    if not is_valid_id(request_id):
        raise ServingError(ErrorCode.REQUEST_NOT_FOUND, "No request of that id waits or runs.")
    return request_id
