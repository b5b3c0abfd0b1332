"""OpenTelemetry behind the tracer of `schemas.tracing`."""
