"""Rotary positions in `config.json`, as older and newer releases of transformers write them."""

import math
from collections.abc import Mapping
from typing import Any

from workers.checkpoints.fields import Fields
from workers.checkpoints.model_config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from workers.runners.base import RunnerError

_DEFAULT_THETA = 10_000.0


def read_rope(fields: Fields) -> tuple[float, RopeScaling | None]:
    """Base and scaling: from `rope_parameters`, else from `rope_theta` and `rope_scaling`. Raises RunnerError."""
    parameters = fields.optional("rope_parameters", None) or fields.optional("rope_scaling", None) or {}
    if not isinstance(parameters, dict) or any(isinstance(value, dict) for value in parameters.values()):
        raise RunnerError(f"{fields.path}: rope parameters that differ by layer are not supported")
    rope = Fields(fields.path, parameters)
    theta = rope.number("rope_theta", fields.number("rope_theta", _DEFAULT_THETA))
    kind = rope.optional("rope_type", rope.optional("type", "default"))
    if rope.optional("partial_rotary_factor", 1) != 1:
        raise RunnerError(f"{fields.path}: partial_rotary_factor is not supported")
    match kind:
        case "default":
            return theta, None
        case "linear":
            return theta, LinearScaling(rope.number("factor"))
        case "llama3":
            return theta, _llama3(rope)
        case "yarn":
            return theta, _yarn(rope, parameters, fields.count("max_position_embeddings"))
    raise RunnerError(f"{fields.path}: rope scaling {kind!r} is not supported (linear, yarn and llama3 are)")


def _llama3(rope: Fields) -> Llama3Scaling:
    scaling = Llama3Scaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_positions=rope.count("original_max_position_embeddings"),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise RunnerError(f"{rope.path}: high_freq_factor is not above low_freq_factor")
    return scaling


def _yarn(rope: Fields, parameters: Mapping[str, Any], max_positions: int) -> YarnScaling:
    factor = rope.number("factor")
    return YarnScaling(
        factor=factor,
        original_max_positions=rope.count("original_max_position_embeddings", max_positions),
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        attention_factor=_attention_factor(rope, factor),
        truncate=bool(parameters.get("truncate", True)),
    )


def _attention_factor(rope: Fields, factor: float) -> float | None:
    if rope.optional("attention_factor", None) is not None:
        return rope.number("attention_factor")
    scales = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    if not all(scales) or factor <= 1:
        return None
    numerator, denominator = (0.1 * scale * math.log(factor) + 1 for scale in scales)
    return numerator / denominator
