"""A GGUF file's metadata as ModelConfig."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workers.checkpoints.fields import Fields
from workers.checkpoints.gguf_header import TensorEntry
from workers.checkpoints.model_config import FactorScaling, LinearScaling, ModelConfig, RopeScaling, YarnScaling
from workers.runners.base import RunnerError

# Mistral's models are "llama" in GGUF.
_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_DEFAULT_THETA = 10_000.0
# What would make it another computation, and the value that does not.
_NEUTRAL = {
    "expert_count": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "attention.scale": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "rope.scaling.yarn_ext_factor": (1, -1),
    "rope.scaling.yarn_attn_factor": (1, -1),
    "rope.scaling.yarn_log_multiplier": (0,),
}


def read_config(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> ModelConfig:
    """`tensors` by GGUF's names. Rope factors of Llama 3 are added by `with_factors`. Raises RunnerError."""
    architecture = metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise RunnerError(f"{path}: the architecture {architecture!r} is not supported (supported: {known})")
    fields = Fields(path, metadata, f"{architecture}.")
    for key, neutral in _NEUTRAL.items():
        value = fields.optional(key, neutral[0])
        if value not in neutral:
            raise RunnerError(f"{path}: {architecture}.{key} is {value}, which is not supported")
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise RunnerError(f"{path}: tensor token_embd.weight is missing or no matrix")
    hidden_size, num_heads = fields.count("embedding_length"), fields.count("attention.head_count")
    return ModelConfig(
        architecture=architecture,
        vocab_size=embedding.shape[0],
        hidden_size=hidden_size,
        num_layers=fields.count("block_count"),
        num_heads=num_heads,
        num_kv_heads=fields.count("attention.head_count_kv", num_heads),
        head_dim=_head_dim(fields, hidden_size // num_heads),
        intermediate_size=fields.count("feed_forward_length"),
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope_theta=fields.number("rope.freq_base", _DEFAULT_THETA),
        rope_scaling=_rope_scaling(fields),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        qk_norm=architecture == "qwen3",
        sliding_window=_sliding_window(fields),
        max_positions=fields.count("context_length"),
    )


def factor_scaling(path: Path, config: ModelConfig, factors: np.ndarray[Any, np.dtype[np.float32]]) -> FactorScaling:
    """Llama 3's rule as the file has it: a number for each frequency."""
    if config.rope_scaling is not None:
        raise RunnerError(f"{path}: rope_freqs.weight beside another rope scaling is not supported")
    if factors.shape != (config.head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
        raise RunnerError(f"{path}: rope_freqs.weight is not {config.head_dim // 2} positive numbers")
    return FactorScaling(tuple(factors.tolist()))


def _head_dim(fields: Fields, default: int) -> int:
    head_dim = fields.count("attention.key_length", default)
    for key in ("attention.value_length", "rope.dimension_count"):
        if fields.count(key, head_dim) != head_dim:
            raise RunnerError(f"{fields.path}: {key} differs from the head size {head_dim}, which is not supported")
    return head_dim


def _sliding_window(fields: Fields) -> int | None:
    window = fields.count("attention.sliding_window", 0)
    return window if 0 < window < fields.count("context_length") else None


def _attention_factor(fields: Fields, factor: float) -> float | None:
    """The file's is times what yarn has by itself."""
    extra = fields.number("rope.scaling.attn_factor", 1.0)
    return None if extra == 1 or factor <= 1 else extra * (0.1 * math.log(factor) + 1)


def _rope_scaling(fields: Fields) -> RopeScaling | None:
    kind = fields.optional("rope.scaling.type", "linear")
    # Files from before the type had a name carry the factor alone.
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0))
    if kind == "none" or (kind == "linear" and factor in (0, 1)):
        return None
    if kind == "linear":
        return LinearScaling(factor)
    if kind == "yarn":
        return YarnScaling(
            factor=factor,
            original_max_positions=fields.count("rope.scaling.original_context_length", fields.count("context_length")),
            beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
            attention_factor=_attention_factor(fields, factor),
        )
    raise RunnerError(f"{fields.path}: rope scaling {kind!r} is not supported (linear, yarn and llama3 are)")
