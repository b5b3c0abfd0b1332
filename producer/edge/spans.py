"""The span of an HTTP call, and what is told to it: the conventions for HTTP and for generative AI of OpenTelemetry.

It is one span for a call however many events its stream has: a span for each would cost more than the event itself.
"""

from starlette.datastructures import Headers
from starlette.types import Scope

from producer.edge.calls import Call, Part
from producer.edge.context import Context
from producer.edge.operation import Route
from producer.metrics import OK
from schemas.events import Finished
from schemas.requests import Endpoint
from schemas.tracing import NO_SPAN, Span, SpanKind, Tracer, Value, read_traceparent

# Asked for every few seconds, and of no interest.
_UNTRACED = frozenset({"/livez", "/readyz", "/healthz", "/health", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OPERATIONS = {Endpoint.CHAT: "chat", Endpoint.COMPLETIONS: "text_completion"}


class HttpSpan:
    """Opened when a call comes in, ended when its answer is out. The context carries the span to who serves it."""

    def __init__(self, tracer: Tracer, scope: Scope, context: Context) -> None:
        self._context = context
        self._status = 0
        self._error: str | None = None
        if scope["path"].removeprefix("/v1") in _UNTRACED:
            context.span = NO_SPAN
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        attributes: dict[str, Value] = {
            "http.request.method": method,
            "url.scheme": scope.get("scheme", "http"),
            "url.path": scope["path"],
        }
        if (peer := scope.get("client")) is not None:
            attributes["client.address"] = peer[0]
        parent = read_traceparent(Headers(scope=scope).get("traceparent"))
        context.span = tracer.start(method, SpanKind.SERVER, parent=parent, attributes=attributes)

    def begins(self, status: int) -> None:
        self._status = status

    def failed(self, error: BaseException) -> None:
        self._error = type(error).__name__

    def end(self) -> None:
        span = self._context.span
        span.set("inferflux.request_id", self._context.request_id)
        if self._status:
            span.set("http.response.status_code", self._status)
        if self._error is None and self._status >= 500:
            self._error = str(self._status)
        span.end(error=self._error)


def name_route(span: Span, route: Route) -> None:
    """What was asked for, by its path in the route table."""
    span.rename(f"{route.method} {route.path}")
    span.set("http.route", route.path)


def note_run(call: Call, part: Part) -> None:
    """Whose claim is in charge now; the spans of a worker that is killed are lost, and this stays."""
    started = part.view.fold.started
    if started is not None and started is not part.started:
        call.span.event("claimed", {"inferflux.request_id": part.request_id, "inferflux.worker": started.worker})


def note_answer(call: Call, outcome: str) -> None:
    """How it ended. Nothing of the text."""
    span = call.span
    if span.trace_id is None:
        return
    ends = [part.view.fold.terminal for part in call.parts]
    finished = [end for end in ends if isinstance(end, Finished)]
    span.set("gen_ai.operation.name", _OPERATIONS[call.header.endpoint])
    span.set("gen_ai.provider.name", "inferflux")
    span.set("gen_ai.request.model", call.model)
    span.set("gen_ai.response.model", call.model)
    span.set("gen_ai.response.id", call.request_id)
    span.set("inferflux.priority", str(call.priority))
    span.set("inferflux.outcome", outcome)
    if finished:
        span.set("gen_ai.response.finish_reasons", [str(end.reason) for end in finished])
        span.set("gen_ai.usage.input_tokens", sum(end.usage.prompt_tokens for end in finished))
        span.set("gen_ai.usage.output_tokens", sum(end.usage.completion_tokens for end in finished))
    if outcome != OK:
        span.set("error.type", outcome)
