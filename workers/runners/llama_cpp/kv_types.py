"""Formats of a cached key or value."""

from typing import NamedTuple

from workers.runners.base import RunnerError

DEFAULT_KV_TYPE = "f16"


class KvType(NamedTuple):
    """`ggml_type` is the library's number for it (`enum ggml_type`, which only grows)."""

    ggml_type: int
    bytes_per_element: float


# The quantised ones are blocks of 32 elements with their scales.
KV_TYPES = {
    "f32": KvType(0, 4.0),
    "f16": KvType(1, 2.0),
    "bf16": KvType(30, 2.0),
    "q8_0": KvType(8, 34 / 32),
    "q5_1": KvType(7, 24 / 32),
    "q5_0": KvType(6, 22 / 32),
    "q4_1": KvType(3, 20 / 32),
    "q4_0": KvType(2, 18 / 32),
    "iq4_nl": KvType(20, 18 / 32),
}


def check_kv_type(name: str | None) -> str:
    """The type to use. Raises RunnerError for one that is not a type."""
    kv_type = (name or DEFAULT_KV_TYPE).lower()
    if kv_type not in KV_TYPES:
        raise RunnerError(f"kv_type {name!r} is not one of {', '.join(KV_TYPES)}")
    return kv_type
