"""/v1/batches"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import AuditLevel, Scope
from producer.edge.batch.batch_types import BatchList, BatchView, CreateBatch
from producer.edge.batch.checking import HELD_BYTES
from producer.edge.body import read_json
from producer.edge.context import context_of, identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.paging import NAMES, page
from producer.edge.routes.query_values import QueryValues
from producer.edge.validation import validated
from schemas.audit import AuditEvent, Outcome
from schemas.batch import BatchJob
from schemas.errors import ErrorCode

_READERS = (Scope.READ, Scope.GENERATE)


@operation(
    summary="Have the lines of a file answered while nothing more urgent waits",
    scope=Scope.GENERATE,
    body=CreateBatch,
    returns=BatchView,
    errors=(
        ErrorCode.INVALID_JSON,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.FILE_NOT_FOUND,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.QUEUE_FULL,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def create_batch(request: Request) -> Response:
    services = services_of(request)
    config = services.config
    with services.arrivals.enter() as arrival:
        values, _ = await read_json(request, config.max_body_bytes, config.body_timeout_s, arrival.take_bytes)
        arrival.take_bytes(HELD_BYTES)
        job = await services.doors.batches.create(validated(CreateBatch, values), identity_of(request))
    _note(request, "batch.create", job, ok=not job.errors)
    return json_response(await services.doors.batches.describe(job))


@operation(
    summary="Batches of one's own: after, limit, order",
    scope=_READERS,
    returns=BatchList,
    errors=(ErrorCode.INVALID_PARAMETER, ErrorCode.UNKNOWN_PARAMETER, ErrorCode.BROKER_UNAVAILABLE),
)
async def list_batches(request: Request) -> Response:
    values, batches = QueryValues(request, NAMES), services_of(request).doors.batches
    jobs = await batches.list_own(identity_of(request))
    return await page(values, jobs, lambda job: job.job, batches.describe, default=20, most=100)


@operation(
    summary="A batch of one's own, and how far it is",
    scope=_READERS,
    returns=BatchView,
    errors=(ErrorCode.BATCH_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def show_batch(request: Request) -> Response:
    batches = services_of(request).doors.batches
    return json_response(await batches.describe(await batches.get(request.path_params["id"], identity_of(request))))


@operation(
    summary="Begin no more lines of a batch",
    scope=Scope.GENERATE,
    returns=BatchView,
    errors=(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.BATCH_NOT_FOUND,
        ErrorCode.QUEUE_FULL,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def cancel_batch(request: Request) -> Response:
    batches = services_of(request).doors.batches
    job = await batches.cancel(await batches.get(request.path_params["id"], identity_of(request)))
    _note(request, "batch.cancel", job)
    return json_response(await batches.describe(job))


def _note(request: Request, action: str, job: BatchJob, *, ok: bool = True) -> None:
    """At the level at which calls are recorded: a batch is many of them."""
    audit, identity = services_of(request).audit, identity_of(request)
    if audit.level is not AuditLevel.REQUESTS:
        return
    audit.note(
        AuditEvent(
            action,
            Outcome.ALLOWED if ok else Outcome.FAILED,
            actor=identity.owner,
            tenant=identity.tenant,
            target=job.job,
            reason="" if ok else job.errors[0].code,
            request_id=context_of(request).request_id,
            details={"input_file": job.input_file, "lines": job.total or 0},
        )
    )
