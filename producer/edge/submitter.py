"""Publishing a call: a journal is opened, and its request queued."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import structlog

from broker.errors import BrokerError
from broker.journal import JournalHub
from broker.journal_view import JournalView
from broker.subjects import request_subject
from broker.work_queue import WorkQueue
from producer.edge.admission import Admission
from producer.edge.background import Background
from producer.edge.calls import Call, LiveCalls, OnDisconnect, Part, Superseded
from producer.edge.charging import settle_at_end
from producer.edge.errors import NOT_SUBMITTED, not_submitted
from producer.edge.lifecycle import Lifecycle
from producer.edge.retry_after import Line, RetryAfter
from producer.edge.shapes import Header
from producer.edge.translate import requests_of
from producer.edge.waiting import Ticket
from producer.limits.charge import Charge
from schemas.errors import ErrorCode, ServingError
from schemas.events import Accepted, Cancelled
from schemas.requests import Endpoint, GenerateRequest
from schemas.tracing import Span, SpanKind, Tracer

_log = structlog.stdlib.get_logger("inferflux.edge.submitter")


@dataclass(frozen=True, slots=True)
class Order:
    """What the submitter needs besides the admitted plan. `span` is the call's own."""

    request_id: str
    timeout_s: float
    on_disconnect: OnDisconnect
    body_hash: str
    idempotency_key: str | None
    span: Span
    journaled: bool


class Submitter:
    """Takes admitted plans. When it returns, the request is in the queue and will end in exactly one terminal event."""

    def __init__(
        self,
        edge_id: str,
        hub: JournalHub,
        queue: WorkQueue,
        calls: LiveCalls,
        lifecycle: Lifecycle,
        is_first: Callable[[str], Awaitable[bool]],
        retry_after: RetryAfter,
        background: Background,
        tracer: Tracer,
    ) -> None:
        self._edge_id = edge_id
        self._hub = hub
        self._queue = queue
        self._calls = calls
        self._lifecycle = lifecycle
        self._is_first = is_first
        self._retry_after = retry_after
        self._background = background
        self._tracer = tracer

    async def submit(self, admission: Admission, order: Order) -> Call:
        """Publish the plan, the caller attached as reader. Raises ServingError or Superseded; then nothing stays."""
        ticket = admission.ticket
        try:
            call = await self._submit(admission, order, ticket)
        except BaseException:
            admission.release()
            raise
        if ticket is not None:
            ticket.submitted()
        call.published.set()
        self._lifecycle.accepted(call)
        return call

    async def _submit(self, admission: Admission, order: Order, ticket: Ticket | None) -> Call:
        if self._calls.get(order.request_id) is not None:
            raise Superseded
        created = int(time.time())
        requests = requests_of(
            admission.plan,
            request_id=order.request_id,
            edge=self._edge_id,
            model=admission.model.id,
            created=created,
            deadline_ms=int((time.time() + order.timeout_s) * 1000),
            identity=admission.identity,
            journaled=order.journaled,
        )
        views = [self._hub.open(request.request_id, journaled=order.journaled) for request in requests]
        call = self._open(admission, order, views, created)
        self._calls.add(call)
        if ticket is not None:
            ticket.follow(call)
        if admission.charge is not None:
            settle_at_end(admission.charge, call, views, admission.prompt_tokens)
        try:
            await self._publish(call, order, requests, admission.charge)
        except BaseException as error:
            self._abandon(call, error)
            if isinstance(error, BrokerError):
                raise _unavailable(error) from error
            raise
        return call

    def _open(self, admission: Admission, order: Order, views: list[JournalView], created: int) -> Call:
        plan, now = admission.plan, time.monotonic()
        header = Header(plan.endpoint, order.request_id, created, admission.model.id, plan.service_tier, None)
        return Call(
            header=header,
            identity=admission.identity,
            priority=plan.priority,
            parts=[Part(view.request_id, self._edge_id, view) for view in views],
            include_usage=plan.include_usage,
            accepted_at=now,
            deadline_at=now + order.timeout_s,
            on_disconnect=order.on_disconnect,
            body_hash=order.body_hash,
            idempotency_key=order.idempotency_key,
            num_readers=1,
            labels=plan.labels,
            is_journaled=order.journaled,
            span=order.span,
        )

    async def _publish(self, call: Call, order: Order, requests: list[GenerateRequest], charge: Charge | None) -> None:
        for index, (part, request) in enumerate(zip(call.parts, requests, strict=True)):
            part.is_accepted = True
            accepting = self._hub.accept(_accepted(call, request, index))
            queueing = self._enqueue(call, part, request, charge)
            if index == 0 and order.idempotency_key is not None:
                await self._one_by_one(accepting, queueing, order.request_id)
            else:
                await _both(accepting, queueing)

    async def _one_by_one(
        self, accepting: Awaitable[int], queueing: Coroutine[Any, Any, None], request_id: str
    ) -> None:
        """Queue only what is the first under its idempotency key, as the journals say."""
        try:
            await accepting
            if not await self._is_first(request_id):
                raise Superseded
        except BaseException:
            queueing.close()
            raise
        await queueing

    async def _enqueue(self, call: Call, part: Part, request: GenerateRequest, charge: Charge | None) -> None:
        """Raises ServingError."""
        if charge is not None:
            await charge.decided()
        part.is_sent = True
        try:
            part.seq = await self._send(request, call.span.traceparent)
        except ServingError as error:
            part.is_sent = error.code is not ErrorCode.QUEUE_FULL
            if error.code is ErrorCode.QUEUE_FULL and error.retry_after_s is None:
                error.retry_after_s = self._retry_after.seconds(Line(call.model, call.priority))
            raise

    async def _send(self, request: GenerateRequest, parent: str | None) -> int:
        """Under a span of its own, to which the worker's belong. Raises ServingError."""
        span = self._tracer.start(
            "publish inferflux.req",
            SpanKind.PRODUCER,
            parent=parent,
            attributes={
                "messaging.system": "nats",
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": request_subject(request.model, request.priority),
                "messaging.message.id": request.request_id,
                "inferflux.request_id": request.request_id,
            },
        )
        try:
            seq = await self._queue.submit(replace(request, traceparent=span.traceparent))
        except ServingError as error:
            span.end(error=str(error.code))
            raise
        except BaseException as error:
            span.end(error=type(error).__name__)
            raise
        span.end()
        return seq

    def _abandon(self, call: Call, error: BaseException) -> None:
        """Take back what was published, and what may have been: an unknown outcome is ended in the journal."""
        if not isinstance(error, Superseded):
            call.failure = error if isinstance(error, ServingError) else _unavailable(error)
        call.published.set()
        self._calls.remove(call)
        call.retired = True
        for part in call.parts:
            self._background.spawn(self._queue.release_body(part.request_id), f"release {part.request_id}")
            if part.is_sent:
                self._lifecycle.end_part(part, Cancelled(NOT_SUBMITTED))
            elif part.is_accepted:
                self._lifecycle.forget(part)
        call.close()
        _log.info("not accepted", request_id=call.request_id, model=call.model, error=str(call.failure or "superseded"))


async def _both(accepting: Coroutine[Any, Any, int], queueing: Coroutine[Any, Any, None]) -> None:
    """Open a journal and queue its request, in this order on the wire, without waiting for the one before the other.

    The answer to the first would be half a millisecond in which nothing happens. A request whose journal was refused is
    taken back like one whose outcome is unknown. Nobody is told of it before both are decided.
    """
    accepted, queued = await asyncio.gather(accepting, queueing, return_exceptions=True)
    for failure in (queued, accepted):
        if isinstance(failure, BaseException):
            raise failure


def body_hash(endpoint: Endpoint, body: bytes) -> str:
    """Tells calls under one idempotency key apart."""
    return hashlib.sha256(f"{endpoint}\0".encode() + body).hexdigest()


def _accepted(call: Call, request: GenerateRequest, index: int) -> Accepted:
    options: dict[str, Any] = {
        "call": call.request_id,
        "part": index,
        "parts": len(call.parts),
        "include_usage": call.include_usage,
        "service_tier": call.header.service_tier,
        "priority": str(call.priority),
        "deadline_ms": request.deadline_ms,
        "on_disconnect": str(call.on_disconnect),
        "journal": "on" if call.is_journaled else "off",
    }
    return Accepted(
        request_id=request.request_id,
        owner=call.identity.owner,
        endpoint=str(request.endpoint),
        model=request.model,
        created=request.created,
        options=options,
        body_hash=call.body_hash,
        idempotency_key=call.idempotency_key,
    )


def _unavailable(error: BaseException) -> ServingError:
    refusal = not_submitted()
    if isinstance(error, BrokerError):
        refusal.message = f"The message broker did not take the request: {error}"
    return refusal
