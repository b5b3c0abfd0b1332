"""Answering a generation call: read, admit, submit; the rest is `answering`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response

from producer.edge.answering import answer
from producer.edge.arrivals import Arrival
from producer.edge.audited import note_refused_call, peer_of
from producer.edge.body import Pace, read_json
from producer.edge.calls import Call
from producer.edge.context import context_of
from producer.edge.departure import Departure
from producer.edge.directives import read_directives
from producer.edge.parameters import check_parameters
from producer.edge.plan import Plan
from producer.edge.reader import Reader
from producer.edge.services import Services
from producer.edge.starting import Asked, start
from producer.edge.submitter import body_hash
from producer.edge.translate import Limits
from producer.metrics import UNKNOWN_MODEL
from schemas.errors import ServingError
from schemas.requests import Endpoint

_log = structlog.stdlib.get_logger("inferflux.edge")

ToPlan = Callable[[dict[str, Any], Limits], Plan]


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
                call = await start(context_of(request), services, asked)
                services.key_watch.follow(call, context_of(request).key_digest)
            except BaseException:
                departure.stop()
                raise
    except ServingError as error:
        services.metrics.refused(endpoint, model, error.code)
        note_refused_call(services.audit, context_of(request), peer_of(request), model, error)
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
