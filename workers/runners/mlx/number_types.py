"""The number types of weights, activations and cached keys and values."""

import mlx.core as mx

from workers.runners.base import RunnerError

# FP16 is for the cache only: activations of models trained in BF16 can leave its range.
NUMBER_TYPES = {"bf16": mx.bfloat16, "f32": mx.float32, "f16": mx.float16}
DEFAULT_COMPUTE_TYPE = "bf16"


def check_kv_type(name: str | None, compute_type: str) -> str:
    """The type of cached keys and values; that of the computation where none is asked for. Raises RunnerError."""
    kv_type = (name or compute_type).lower()
    if kv_type not in NUMBER_TYPES:
        raise RunnerError(f"kv_type {name!r} is not one of {', '.join(NUMBER_TYPES)}")
    return kv_type
