"""Formats of a cached key or value."""

from workers.runners.base import RunnerError

DEFAULT_KV_TYPE = "f16"

# Bytes per element. The quantised ones are blocks of 32 with their scales.
KV_TYPES: dict[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


def check_kv_type(name: str | None) -> str:
    """The type to use. Raises RunnerError for one that is not a type."""
    kv_type = (name or DEFAULT_KV_TYPE).lower()
    if kv_type not in KV_TYPES:
        raise RunnerError(f"kv_type {name!r} is not one of {', '.join(KV_TYPES)}")
    return kv_type


def ggml_constant(kv_type: str) -> str:
    """The library's name for it."""
    return f"GGML_TYPE_{kv_type.upper()}"
