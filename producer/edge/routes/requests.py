"""DELETE /v1/requests/{id}, GET /v1/requests/{id}/events"""

from starlette.requests import Request
from starlette.responses import Response

from broker.subjects import is_valid_id
from producer.config import Scope
from producer.edge.answering import answer
from producer.edge.calls import Call, OnDisconnect
from producer.edge.context import context_of, identity_of
from producer.edge.departure import Departure
from producer.edge.directives import read_on_disconnect, read_queue_updates
from producer.edge.finding import no_such_request
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.openai_types import AnyChunk, CancelledRequest
from producer.edge.operation import operation
from producer.edge.place import check_place, read_place
from producer.edge.reader import Reader
from schemas.errors import ErrorCode

_PREFIXES = ("chatcmpl-", "cmpl-")


@operation(
    summary="Cancel a request of one's own",
    scope=Scope.GENERATE,
    returns=CancelledRequest,
    errors=(ErrorCode.REQUEST_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def cancel_request(request: Request) -> Response:
    request_id = _request_id(request)
    cancelled = await services_of(request).joining.cancel(request_id, identity_of(request))
    return json_response({"id": request_id, "object": "request", "cancelled": cancelled})


@operation(
    summary="Read the answer to a request of one's own, from behind Last-Event-ID or from its beginning",
    scope=Scope.GENERATE,
    returns=None,
    stream=AnyChunk,
    errors=(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.REQUEST_NOT_FOUND,
        ErrorCode.JOURNAL_EXPIRED,
        ErrorCode.POISONED,
        ErrorCode.BROKER_UNAVAILABLE,
        ErrorCode.DEADLINE_EXCEEDED,
    ),
)
async def resume_request(request: Request) -> Response:
    """A reader that leaves does not end the work unless it says so: whoever called may still be connected elsewhere."""
    services = services_of(request)
    reader = Reader(
        stream=True,
        queue_updates=read_queue_updates(request.headers),
        on_disconnect=read_on_disconnect(request.headers, default=OnDisconnect.CONTINUE),
        start=read_place(request.headers),
    )
    departure = Departure(request.receive)
    try:
        call = await _attach(request, reader)
    except BaseException:
        departure.stop()
        raise
    return await answer(services, call, reader, departure)


async def _attach(request: Request, reader: Reader) -> Call:
    services = services_of(request)
    call = await services.resuming.attach(_request_id(request), identity_of(request))
    services.key_watch.follow(call, context_of(request).key_digest)
    try:
        if reader.start is not None:
            check_place(reader.start, call)
    except BaseException:
        services.lifecycle.detach(call, left=False)
        raise
    context_of(request).request_id = call.request_id
    services.lifecycle.resumed(call, reader.last_event_id)
    return call


def _request_id(request: Request) -> str:
    """With or without the prefix that it has in an answer. Raises ServingError (404)."""
    request_id: str = request.path_params["id"]
    for prefix in _PREFIXES:
        request_id = request_id.removeprefix(prefix)
    if not is_valid_id(request_id):
        raise no_such_request()
    return request_id
