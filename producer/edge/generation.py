"""Answering a generation call: read, admit, submit; the rest is `answering`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response

from producer.edge.admission import Admission, admit
from producer.edge.answering import answer
from producer.edge.arrivals import Arrival
from producer.edge.audited import note_refused_call, remember_prompt
from producer.edge.body import Pace, read_json
from producer.edge.calls import Call, Superseded
from producer.edge.context import context_of, identity_of
from producer.edge.departure import Departure
from producer.edge.directives import Directives, read_directives
from producer.edge.parameters import check_parameters
from producer.edge.plan import Plan
from producer.edge.reader import Reader
from producer.edge.resubmission import has_to_begin, submit_what_is_not_begun
from producer.edge.services import Services
from producer.edge.submitter import Order, body_hash
from producer.edge.translate import Limits
from producer.metrics import UNKNOWN_MODEL
from schemas.errors import ServingError
from schemas.requests import Endpoint
from schemas.tracing import Span, SpanKind

_log = structlog.stdlib.get_logger("inferflux.edge")

ToPlan = Callable[[dict[str, Any], Limits], Plan]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as read, before admission."""

    plan: Plan
    directives: Directives
    body_hash: str
    ignored: tuple[str, ...]


class Begun(NamedTuple):
    """A call that runs, and how to answer it. Nothing of what was asked: prompts are not held while it runs."""

    call: Call
    departure: Departure
    reader: Reader


async def generate(request: Request, services: Services, endpoint: Endpoint, to_plan: ToPlan) -> Response:
    """The handler of every generation route. Raises ServingError until the status is decided."""
    call, departure, reader = await _begin(request, services, endpoint, to_plan)
    return await answer(services, call, reader, departure)


async def _begin(request: Request, services: Services, endpoint: Endpoint, to_plan: ToPlan) -> Begun:
    model = UNKNOWN_MODEL
    try:
        with services.arrivals.enter() as arrival:
            asked = await _read(request, services, endpoint, to_plan, arrival)
            card = services.models.find(asked.plan.model)
            model = card.id if card is not None else UNKNOWN_MODEL
            arrival.take_places(len(asked.plan.prompts))
            departure = Departure(request.receive)
            try:
                call = await _start(request, services, asked)
                services.key_watch.follow(call, context_of(request).key_digest)
            except BaseException:
                await departure.stop()
                raise
    except ServingError as error:
        services.metrics.refused(endpoint, model, error.code)
        note_refused_call(services.audit, request, model, error)
        _log.info("refused", request_id=context_of(request).request_id, model=model, code=str(error.code))
        raise
    reader = Reader(
        stream=asked.plan.stream,
        queue_updates=asked.directives.queue_updates,
        on_disconnect=asked.directives.on_disconnect,
        ignored=asked.ignored,
    )
    return Begun(call, departure, reader)


async def _read(request: Request, services: Services, endpoint: Endpoint, to_plan: ToPlan, arrival: Arrival) -> Asked:
    config = services.config
    directives = read_directives(request.headers, services.limits.max_timeout_s)
    values, body = await read_json(
        request, config.max_body_bytes, config.body_timeout_s, arrival.take_bytes, Pace(*config.body_pace)
    )
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
        if has_to_begin(found):
            # The edge that admitted it is dead, and what it changed in the plan is known nowhere.
            plan = await services.guardrails.check(identity_of(request), found.model, asked.plan)
            await submit_what_is_not_begun(found, plan, services.queue, context_of(request).span.traceparent)
    except BaseException:
        services.lifecycle.detach(found, left=False)
        raise
    return found


async def _submit(request: Request, services: Services, asked: Asked) -> Call:
    admission = Admission(identity_of(request), asked.plan)
    try:
        call = await _admit_and_submit(request, services, asked, admission)
    finally:
        if admission.charge is not None:
            context_of(request).limits = admission.charge.headers()
    remember_prompt(services.audit, call, asked.plan)
    return call


async def _admit_and_submit(request: Request, services: Services, asked: Asked, admission: Admission) -> Call:
    await _admit(services, admission, context_of(request).span)
    order = Order(
        request_id=context_of(request).request_id,
        timeout_s=_timeout_s(asked, services.config.request_timeout_s),
        on_disconnect=asked.directives.on_disconnect,
        body_hash=asked.body_hash,
        idempotency_key=asked.directives.idempotency_key,
        span=context_of(request).span,
        journaled=asked.directives.journaled,
    )
    return await services.submitter.submit(admission, order)


async def _admit(services: Services, admission: Admission, call: Span) -> None:
    span = services.tracer.start("admission", SpanKind.INTERNAL, parent=call.traceparent)
    try:
        await admit(admission, services.stages)
    except ServingError as error:
        # A refusal is what admission is for.
        span.set("inferflux.refusal", str(error.code))
        raise
    finally:
        span.end()


def _timeout_s(asked: Asked, default_s: float) -> float:
    given = [each for each in (asked.plan.timeout_s, asked.directives.timeout_s) if each is not None]
    return min(given, default=default_s)
