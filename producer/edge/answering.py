"""Answering one reader of a call: hold the status; then the whole answer or a stream."""

from starlette.responses import Response

from producer.edge.body import ClientLeft
from producer.edge.call_stream import CallStream
from producer.edge.calls import Call
from producer.edge.departure import Departure
from producer.edge.errors import RESUME
from producer.edge.hold import Hold, hold_status
from producer.edge.ids import resume_path
from producer.edge.output_filter import make_filter
from producer.edge.place import beyond_the_end, is_beyond
from producer.edge.reader import Reader
from producer.edge.services import Services
from producer.edge.shapes import render_body
from producer.edge.stream import WholeAnswer
from schemas.events import Cancelled


async def answer(services: Services, call: Call, reader: Reader, departure: Departure) -> Response:
    """The caller is attached to the call, and is detached when its answer is out. Raises ServingError, ClientLeft."""
    headers = {"x-inferflux-priority": str(call.priority)}
    if reader.ignored:
        headers["x-inferflux-ignored"] = _header_list(reader.ignored)
    left = False
    handed_over = False
    try:
        if not reader.stream:
            whole = WholeAnswer(call, services.filters)
            hold = await hold_status(services, call, departure, lambda: call.is_settled or whole.is_cut(), None)
            left = hold is Hold.LEFT
            return _whole(services, call, reader, hold, headers, whole)
        if not reader.queue_updates:
            hold = await hold_status(services, call, departure, lambda: call.has_output, services.config.status_hold_s)
            left = hold is Hold.LEFT
            _raise_instead(services, call, reader, hold)
            if call.first_failure is not None and not call.has_tokens:
                _raise_failure(services, call)
        _check_start(services, call, reader)
        if call.is_journaled:
            headers[RESUME] = resume_path(call.request_id)
        response = CallStream(services, call, reader, departure, headers)
        handed_over = True
        return response
    finally:
        if not handed_over:
            departure.stop()
            services.lifecycle.detach(call, left=left, on_disconnect=reader.on_disconnect)


def _whole(
    services: Services, call: Call, reader: Reader, hold: Hold, headers: dict[str, str], whole: WholeAnswer
) -> Response:
    _raise_instead(services, call, reader, hold)
    return Response(whole_body(services, call, whole), media_type="application/json", headers=headers)


def whole_body(services: Services, call: Call, whole: WholeAnswer) -> bytes:
    """The body of a call that is settled or cut. Raises ServingError with what it failed with."""
    if call.failure is not None:
        raise call.failure
    if call.first_failure is not None and not whole.is_cut():
        _raise_failure(services, call)
    try:
        answers = whole.collect()
    finally:
        call.delivered = True
    for part in call.open_parts():
        services.lifecycle.end_part(part, Cancelled("filtered"))
    return render_body(call.rendered_header(), answers)


def _check_start(services: Services, call: Call, reader: Reader) -> None:
    if reader.start is None:
        return
    is_filtered = make_filter(services.filters, call.identity, call.model) is not None
    for part, start in zip(call.parts, reader.start, strict=True):
        if is_beyond(part.view.fold, start, is_filtered):
            raise beyond_the_end(part.view.fold.length)


def _raise_instead(services: Services, call: Call, reader: Reader, hold: Hold) -> None:
    """Raise what is answered when the journal has no say."""
    if hold is Hold.LEFT:
        raise ClientLeft
    if hold is Hold.DRAINED:
        raise services.drain.interruption(call, reader.last_event_id)
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
