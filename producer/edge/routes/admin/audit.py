"""GET /v1/admin/audit, /v1/admin/audit/verify and /v1/admin/audit/export; POST /v1/admin/audit/verify"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from broker.errors import BrokerUnavailable
from producer.audit.export import FileVerifier
from producer.audit.query import Place, Query
from producer.audit.reading import AuditReader
from producer.config import Scope
from producer.edge.body import ClientLeft, UnreadBody
from producer.edge.context import context_of, identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.query_values import QueryValues, invalid
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError

_NAMES = ("since", "until", "actor", "action", "outcome", "after", "limit", "order")
_MAX_LINE = 4 << 20
_NDJSON = "application/x-ndjson"


class AuditRecord(BaseModel):
    """One event. Fields that say nothing are left out."""

    object: Literal["audit.record"]
    id: str
    at: str
    writer: str
    n: int
    action: str
    outcome: Outcome
    actor: str | None = None
    tenant: str | None = None
    target: str | None = None
    request_id: str | None = None
    reason: str | None = None
    details: dict[str, Any] | None = None


class AuditList(BaseModel):
    """`last_id` is what `after` takes to go on; null at the end."""

    object: Literal["list"]
    data: list[AuditRecord]
    has_more: bool
    last_id: str | None


class AuditProblem(BaseModel):
    line: int | None
    seq: int | None
    writer: str
    n: int | None
    reason: str


class AuditChain(BaseModel):
    writer: str
    first: int
    last: int
    last_seq: int
    closed: bool


class AuditVerification(BaseModel):
    """What was checked, and the first problems, by where they are."""

    object: Literal["audit.verification"]
    ok: bool
    kind: Literal["stream", "export", "log"]
    records: int
    first_seq: int
    last_seq: int
    torn_lines: int
    problems: list[AuditProblem]
    num_problems: int
    chains: list[AuditChain]


@operation(
    summary="List audit records, newest first: since, until, actor, action, outcome, after, limit, order",
    scope=Scope.ADMIN,
    returns=AuditList,
    errors=(ErrorCode.INVALID_PARAMETER, ErrorCode.UNKNOWN_PARAMETER, ErrorCode.BROKER_UNAVAILABLE),
)
async def list_audit(request: Request) -> Response:
    query = _read_query(QueryValues(request, _NAMES))
    try:
        page = await _reader(request).find(query)
    except BrokerUnavailable as error:
        raise _unavailable(error) from error
    last_id = page.after.id if page.after is not None else None
    return json_response(
        {"object": "list", "data": page.records, "has_more": page.after is not None, "last_id": last_id}
    )


@operation(
    summary="Verify the audit records in the broker",
    scope=Scope.ADMIN,
    returns=AuditVerification,
    errors=(ErrorCode.UNKNOWN_PARAMETER, ErrorCode.BROKER_UNAVAILABLE),
)
async def verify_audit(request: Request) -> Response:
    QueryValues(request, ())
    try:
        report = await _reader(request).verify()
    except BrokerUnavailable as error:
        raise _unavailable(error) from error
    return json_response(report.as_json())


@operation(
    summary="Verify an export or an audit log, sent as the body",
    scope=Scope.ADMIN,
    returns=AuditVerification,
    errors=(ErrorCode.UNKNOWN_PARAMETER, ErrorCode.INVALID_PARAMETER),
)
async def verify_audit_file(request: Request) -> Response:
    QueryValues(request, ())
    services = services_of(request)
    verifier = FileVerifier(services.audit.keys)
    rest = b""
    async for chunk in _chunks(request, services.config.body_timeout_s):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE:
            raise UnreadBody(ErrorCode.INVALID_PARAMETER, f"A line is longer than {_MAX_LINE} bytes: it is no record.")
        await asyncio.to_thread(_feed, verifier, lines)
    if rest:
        verifier.feed(rest)
    return json_response(verifier.finish().as_json())


@operation(
    summary="Export all audit records as JSON lines that can be verified",
    scope=Scope.ADMIN,
    returns=_NDJSON,
    errors=(ErrorCode.UNKNOWN_PARAMETER, ErrorCode.BROKER_UNAVAILABLE),
)
async def export_audit(request: Request) -> Response:
    QueryValues(request, ())
    identity = identity_of(request)
    services_of(request).audit.note(
        AuditEvent(
            "audit.export",
            Outcome.ALLOWED,
            actor=identity.owner,
            tenant=identity.tenant,
            request_id=context_of(request).request_id,
        )
    )
    lines = _reader(request).export()
    try:
        first = await anext(lines)
    except BrokerUnavailable as error:
        raise _unavailable(error) from error
    return StreamingResponse(_behind(first, lines), media_type=_NDJSON)


def _reader(request: Request) -> AuditReader:
    return services_of(request).audit.reader


def _read_query(values: QueryValues) -> Query:
    after = values.text("after", 64)
    try:
        place = Place.parse(after) if after is not None else None
    except ValueError:
        raise invalid("after", "must be the id of an audit record") from None
    return Query(
        since=values.time("since"),
        until=values.time("until"),
        actor=values.text("actor"),
        action=values.text("action"),
        outcome=values.choice("outcome", [str(each) for each in Outcome]),
        after=place,
        limit=values.integer("limit", 100, 1, 1000),
        is_newest_first=values.choice("order", ("desc", "asc")) != "asc",
    )


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for lines in rest:
        yield lines


async def _chunks(request: Request, timeout_s: float) -> AsyncIterator[bytes]:
    """The body as it comes; each piece has `timeout_s` to arrive."""
    more = True
    while more:
        try:
            async with asyncio.timeout(timeout_s):
                message = await request.receive()
        except TimeoutError:
            raise UnreadBody(
                ErrorCode.INVALID_PARAMETER, f"The body did not go on arriving within {timeout_s:g} s."
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _feed(verifier: FileVerifier, lines: list[bytes]) -> None:
    for line in lines:
        verifier.feed(line)


def _unavailable(error: BrokerUnavailable) -> ServingError:
    return ServingError(ErrorCode.BROKER_UNAVAILABLE, f"{error}.", retryable=True, retry_after_s=2)
