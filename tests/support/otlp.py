"""An OpenTelemetry collector as far as tests need one: takes OTLP over HTTP and keeps the spans."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

_WAIT_S = 60.0


@dataclass(frozen=True)
class ReceivedSpan:
    """`process` is the instance id of who sent it. Times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    is_error: bool
    process: str
    service: str


@dataclass
class Collector:
    """What was received so far; filled by the server's threads. `raw` is all of it, as it came."""

    url: str
    spans: list[ReceivedSpan] = field(default_factory=list)
    raw: bytes = b""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes) -> None:
        spans = list(_decode(body))
        with self._changed:
            self.raw += body
            self.spans += spans
            self._changed.notify_all()

    def until(self, find: Callable[[list[ReceivedSpan]], list[ReceivedSpan] | None]) -> list[ReceivedSpan]:
        """Wait until `find` finds what it looks for in all spans."""
        deadline = time.monotonic() + _WAIT_S
        with self._changed:
            while not (found := find(self.spans)):
                left_s = deadline - time.monotonic()
                if not self._changed.wait(max(0.0, left_s)) and left_s <= 0:
                    names = [(span.process, span.name, span.attributes) for span in self.spans]
                    raise AssertionError(f"not within {_WAIT_S} s; there are {names}")
            return found


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A running one, on a port of its own."""
    pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="otel is not installed")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    received = Collector(f"http://127.0.0.1:{server.server_port}")
    server.collector = received  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        is_known = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        if is_known:
            self.server.collector.take(body)  # type: ignore[attr-defined]
        self.send_response(200 if is_known else 404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _decode(body: bytes) -> Iterator[ReceivedSpan]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _values(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_values(span.attributes),
                    events={event.name: _values(event.attributes) for event in span.events},
                    is_error=span.status.code == 2,
                    process=resource["service.instance.id"],
                    service=resource["service.name"],
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)
