"""Whether a process traces, and its tracer."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from ops.errors import CannotStart
from ops.settings.settings import TracingSettings
from schemas.tracing import NO_TRACER, Tracer

INSTALL = "make setup PARTS=otel"
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def require_packages(settings: TracingSettings) -> None:
    """Raises CannotStart when tracing is asked for, and what it needs is not installed."""
    if settings.endpoint is not None and not all(map(_is_installed, _PACKAGES)):
        raise CannotStart(f"tracing.endpoint is set, but OpenTelemetry is not installed; run: {INSTALL}")


@contextmanager
def open_tracer(settings: TracingSettings, process_id: str) -> Iterator[Tracer]:
    """The process's tracer, which records nothing unless configured. What waits at the end is sent, for a moment.

    Raises CannotStart as `require_packages` does.
    """
    require_packages(settings)
    if settings.endpoint is None:
        yield NO_TRACER
        return
    from ops.telemetry.otel_tracer import OtelTracer

    tracer = OtelTracer(settings.endpoint, settings.sample_ratio, settings.service_name, process_id)
    try:
        yield tracer
    finally:
        tracer.close()


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
