"""Tracing as edge and worker see it: they open spans, and whoever starts the process decides what becomes of them.

What joins the spans of a request is the W3C `traceparent`, a text that goes with its message through the queue. Without
a tracer that of the client is passed on as it came.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

Value = str | int | float | bool | Sequence[str]
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def read_traceparent(text: str | None) -> str | None:
    """The W3C header; what is not one starts a new trace, as the standard says."""
    stripped = (text or "").strip()
    return stripped if _TRACEPARENT.fullmatch(stripped) else None


class SpanKind(StrEnum):
    SERVER = "server"
    INTERNAL = "internal"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Outcome(StrEnum):
    """What becomes of spans that have ended. `dropped`: there was no room for them."""

    EXPORTED = "exported"
    DROPPED = "dropped"
    FAILED = "failed"


class Span(Protocol):
    """Opened by a Tracer, ended once; what comes after its end is ignored. Times are Unix nanoseconds, None is now."""

    @property
    def traceparent(self) -> str | None:
        """What is to be sent to those whose spans belong under this one."""

    @property
    def trace_id(self) -> str | None:
        """Of a span that is recorded; None of the others."""

    def rename(self, name: str) -> None: ...

    def set(self, name: str, value: Value) -> None: ...

    def event(self, name: str, attributes: Mapping[str, Value] | None = None, at_ns: int | None = None) -> None: ...

    def end(self, *, error: str | None = None, at_ns: int | None = None) -> None:
        """`error` is what kind of failure it ended with; the span counts as failed then."""


class Tracer(Protocol):
    """Never blocks and never raises, whatever becomes of the spans. Safe from any thread."""

    def start(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: str | None,
        attributes: Mapping[str, Value] | None = None,
        at_ns: int | None = None,
    ) -> Span:
        """Open a span under `parent`, a traceparent; None begins a trace."""

    def report_to(self, count: Callable[[Outcome, int], None]) -> None:
        """Call `count` with a number of spans whenever it is known what has become of them; from any thread."""


class _NoSpan:
    """Nothing is recorded; what comes behind belongs under what came before."""

    __slots__ = ("traceparent",)
    trace_id = None

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def rename(self, name: str) -> None:
        pass

    def set(self, name: str, value: Value) -> None:
        pass

    def event(self, name: str, attributes: Mapping[str, Value] | None = None, at_ns: int | None = None) -> None:
        pass

    def end(self, *, error: str | None = None, at_ns: int | None = None) -> None:
        pass


class _NoTracer:
    def start(
        self,
        name: str,
        kind: SpanKind,
        *,
        parent: str | None,
        attributes: Mapping[str, Value] | None = None,
        at_ns: int | None = None,
    ) -> Span:
        return _NoSpan(parent)

    def report_to(self, count: Callable[[Outcome, int], None]) -> None:
        pass


NO_SPAN: Span = _NoSpan(None)
NO_TRACER: Tracer = _NoTracer()
