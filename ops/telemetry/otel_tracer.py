"""The tracer that records: spans of the OpenTelemetry SDK, sent by OTLP over HTTP."""

import logging
from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from ops.telemetry.span_queue import SpanQueue
from ops.version import installed_version
from schemas.tracing import Outcome, Span, SpanKind, Value

_KINDS = {
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
    SpanKind.PRODUCER: trace.SpanKind.PRODUCER,
    SpanKind.CONSUMER: trace.SpanKind.CONSUMER,
}
_EXPORT_S = 5.0


class OtelTracer:
    """Owned by a process. `endpoint` is a collector's base URL; `sample_ratio` is for traces that begin here, those of
    others are recorded as they say themselves.
    """

    def __init__(self, endpoint: str, sample_ratio: float, service_name: str, process_id: str) -> None:
        # It says for each batch what the queue says once.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_S)
        self._queue = SpanQueue(exporter)
        version = installed_version()
        resource = Resource.create(
            {"service.name": service_name, "service.version": version, "service.instance.id": process_id}
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(self._queue)
        self._tracer = self._provider.get_tracer("inferflux", version)

    def start(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: str | None,
        attributes: Mapping[str, Value] | None = None,
        at_ns: int | None = None,
    ) -> Span:
        context = trace.set_span_in_context(
            NonRecordingSpan(_context_of(parent) if parent else trace.INVALID_SPAN_CONTEXT)
        )
        return OtelSpan(self._tracer.start_span(name, context, _KINDS[kind], attributes, start_time=at_ns))

    def report_to(self, count: Callable[[Outcome, int], None]) -> None:
        self._queue.report_to(count)

    def close(self) -> None:
        """Send what waits, for a moment."""
        self._provider.shutdown()


class OtelSpan:
    """A span of the SDK; one that is not sampled carries its ids on and nothing else."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent: str | None = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def trace_id(self) -> str | None:
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def rename(self, name: str) -> None:
        if self._span.is_recording():
            self._span.update_name(name)

    def set(self, name: str, value: Value) -> None:
        if self._span.is_recording():
            self._span.set_attribute(name, value)

    def event(self, name: str, attributes: Mapping[str, Value] | None = None, at_ns: int | None = None) -> None:
        if self._span.is_recording():
            self._span.add_event(name, attributes, at_ns)

    def end(self, *, error: str | None = None, at_ns: int | None = None) -> None:
        if not self._span.is_recording():
            return
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(at_ns)


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16) & 3))
