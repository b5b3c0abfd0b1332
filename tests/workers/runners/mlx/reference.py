"""The same computation in numpy, in FP64 and at one go: what the runner's numbers are held against."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from workers.checkpoints import ModelConfig
from workers.runners.base import FloatArray

Array = npt.NDArray[np.float64]


class Tensors(Protocol):
    def read(self, name: str) -> FloatArray: ...


def frequencies(config: ModelConfig) -> Array:
    """Radians per position, for a model without scaling."""
    return config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)


def reference_logits(
    tensors: Tensors, config: ModelConfig, token_ids: list[int], rope: Array, amplitude: float = 1.0
) -> Array:
    """Logits after every token. `rope` are radians per position for each pair of a head's halves."""

    def read(name: str) -> Array:
        return tensors.read(name).astype(np.float64)

    def norm(x: Array, name: str) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * read(name)

    angles = np.outer(np.arange(len(token_ids)), rope)
    cos, sin = np.cos(angles) * amplitude, np.sin(angles) * amplitude

    def turn(x: Array) -> Array:
        """(heads, tokens, head size)"""
        one, other = np.split(x, 2, axis=-1)
        return np.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1)

    def project(x: Array, name: str, num_heads: int) -> Array:
        y = x @ read(f"{name}.weight").T
        if config.attention_bias:
            y = y + read(f"{name}.bias")
        return y.reshape(len(x), num_heads, config.head_dim).swapaxes(0, 1)

    hidden = read("model.embed_tokens.weight")[token_ids]
    unseen = np.triu(np.full((len(token_ids), len(token_ids)), -np.inf), 1)
    for number in range(config.num_layers):
        layer = f"model.layers.{number}"
        x = norm(hidden, f"{layer}.input_layernorm.weight")
        q = project(x, f"{layer}.self_attn.q_proj", config.num_heads)
        k = project(x, f"{layer}.self_attn.k_proj", config.num_kv_heads)
        v = project(x, f"{layer}.self_attn.v_proj", config.num_kv_heads)
        if config.qk_norm:
            q, k = norm(q, f"{layer}.self_attn.q_norm.weight"), norm(k, f"{layer}.self_attn.k_norm.weight")
        group = config.num_heads // config.num_kv_heads
        k, v = np.repeat(turn(k), group, axis=0), np.repeat(v, group, axis=0)
        weights = _softmax(turn(q) @ k.swapaxes(1, 2) / np.sqrt(config.head_dim) + unseen)
        mixed = (weights @ v).swapaxes(0, 1).reshape(len(token_ids), -1)
        hidden = hidden + mixed @ read(f"{layer}.self_attn.o_proj.weight").T
        x = norm(hidden, f"{layer}.post_attention_layernorm.weight")
        gate, up = x @ read(f"{layer}.mlp.gate_proj.weight").T, x @ read(f"{layer}.mlp.up_proj.weight").T
        hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ read(f"{layer}.mlp.down_proj.weight").T
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    logits: Array = norm(hidden, "model.norm.weight") @ read(head).T
    return logits


def _softmax(x: Array) -> Array:
    x = np.exp(x - x.max(-1, keepdims=True))
    softmax: Array = x / x.sum(-1, keepdims=True)
    return softmax
