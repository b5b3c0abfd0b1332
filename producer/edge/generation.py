"""Answering a generation call: read, admit, submit; hold the status; then the whole answer or a stream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response

from producer.edge.admission import Admission, admit
from producer.edge.body import ClientLeft, read_json
from producer.edge.call_stream import CallStream
from producer.edge.calls import Call, Superseded
from producer.edge.context import context_of, identity_of
from producer.edge.departure import Departure
from producer.edge.directives import Directives, read_directives
from producer.edge.hold import Hold, hold_status
from producer.edge.parameters import check_parameters
from producer.edge.plan import Plan
from producer.edge.resubmission import submit_what_is_not_begun
from producer.edge.services import Services
from producer.edge.shapes import render_body
from producer.edge.stream import collect_answers
from producer.edge.submitter import Order, body_hash
from producer.edge.translate import Limits
from producer.metrics import UNKNOWN_MODEL
from schemas.errors import ServingError
from schemas.requests import Endpoint

_log = structlog.stdlib.get_logger("inferflux.edge")

ToPlan = Callable[[dict[str, Any], Limits], Plan]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as read, before admission."""

    plan: Plan
    directives: Directives
    body_hash: str
    ignored: tuple[str, ...]


async def generate(request: Request, services: Services, endpoint: Endpoint, to_plan: ToPlan) -> Response:
    """The handler of every generation route. Raises ServingError until the status is decided."""
    model = UNKNOWN_MODEL
    try:
        asked = await _read(request, services, endpoint, to_plan)
        card = services.models.find(asked.plan.model)
        model = card.id if card is not None else UNKNOWN_MODEL
        departure = Departure(request.receive)
        try:
            call = await _start(request, services, asked)
        except BaseException:
            await departure.stop()
            raise
    except ServingError as error:
        services.metrics.refused(endpoint, model, error.code)
        _log.info("refused", request_id=context_of(request).request_id, model=model, code=str(error.code))
        raise
    return await _answer(services, call, asked, departure)


async def _read(request: Request, services: Services, endpoint: Endpoint, to_plan: ToPlan) -> Asked:
    config = services.config
    directives = read_directives(request.headers, services.limits.max_timeout_s)
    values, body = await read_json(request, config.max_body_bytes, config.body_timeout_s)
    checked = check_parameters(endpoint, values, config.unknown_parameters)
    plan = to_plan(checked.values, services.limits)
    return Asked(plan, directives, body_hash(endpoint, body), checked.ignored)


async def _start(request: Request, services: Services, asked: Asked) -> Call:
    """Join the call that the idempotency key names, or admit and submit a new one."""
    while True:
        try:
            return await _join(request, services, asked) or await _submit(request, services, asked)
        except Superseded:
            continue


async def _join(request: Request, services: Services, asked: Asked) -> Call | None:
    key = asked.directives.idempotency_key
    if key is None:
        return None
    found = await services.joining.join(identity_of(request), key, asked.body_hash)
    if not isinstance(found, Call):
        context_of(request).request_id = found
        return None
    context_of(request).request_id = found.request_id
    try:
        await submit_what_is_not_begun(found, asked.plan, services.queue)
    except BaseException:
        services.lifecycle.detach(found, left=False)
        raise
    return found


async def _submit(request: Request, services: Services, asked: Asked) -> Call:
    admission = Admission(identity_of(request), asked.plan)
    await admit(admission, services.stages)
    order = Order(
        request_id=context_of(request).request_id,
        timeout_s=_timeout_s(asked, services.config.request_timeout_s),
        on_disconnect=asked.directives.on_disconnect,
        body_hash=asked.body_hash,
        idempotency_key=asked.directives.idempotency_key,
        traceparent=asked.directives.traceparent,
    )
    return await services.submitter.submit(admission, order)


def _timeout_s(asked: Asked, default_s: float) -> float:
    given = [each for each in (asked.plan.timeout_s, asked.directives.timeout_s) if each is not None]
    return min(given, default=default_s)


async def _answer(services: Services, call: Call, asked: Asked, departure: Departure) -> Response:
    headers = {"x-inferflux-priority": str(call.priority)}
    if asked.ignored:
        headers["x-inferflux-ignored"] = _header_list(asked.ignored)
    left = False
    handed_over = False
    try:
        if not asked.plan.stream:
            hold = await hold_status(services, call, departure, lambda: call.is_settled, None)
            left = hold is Hold.LEFT
            return _whole(services, call, hold, headers)
        if not asked.directives.queue_updates:
            hold = await hold_status(services, call, departure, lambda: call.has_output, services.config.status_hold_s)
            left = hold is Hold.LEFT
            _raise_instead(services, call, hold)
            if call.first_failure is not None and not call.has_tokens:
                _raise_failure(services, call)
        response = CallStream(services, call, headers)
        handed_over = True
        return response
    finally:
        await departure.stop()
        if not handed_over:
            services.lifecycle.detach(call, left=left)


def _whole(services: Services, call: Call, hold: Hold, headers: dict[str, str]) -> Response:
    _raise_instead(services, call, hold)
    if call.first_failure is not None:
        _raise_failure(services, call)
    try:
        answers = collect_answers(call, services.filters)
    finally:
        call.delivered = True
    return Response(render_body(call.rendered_header(), answers), media_type="application/json", headers=headers)


def _raise_instead(services: Services, call: Call, hold: Hold) -> None:
    """Raise what is answered when the journal has no say."""
    if hold is Hold.LEFT:
        raise ClientLeft
    if hold is Hold.DRAINED:
        raise services.drain.error()
    if call.failure is not None:
        raise call.failure


def _raise_failure(services: Services, call: Call) -> None:
    """Raise what the journal of a part ended with; the other parts are of no use any more."""
    error = call.first_failure
    assert error is not None
    call.delivered = True
    if not call.is_over:
        services.lifecycle.cancel(call, "sibling_failed")
    raise error


def _header_list(names: tuple[str, ...]) -> str:
    text = ", ".join(names).encode("ascii", "replace").decode()
    return "".join(character if character.isprintable() else "?" for character in text)[:1000]
