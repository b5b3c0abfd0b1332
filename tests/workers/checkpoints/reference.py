"""A model computed plainly, in numpy: what the tensors and the configuration of a checkpoint come to."""

from collections.abc import Sequence

import numpy as np

from workers.checkpoints import Checkpoint
from workers.checkpoints.rope import rotation


def all_logits(checkpoint: Checkpoint, token_ids: Sequence[int]) -> np.ndarray:
    """Logits after each token, (len(token_ids), vocab_size), in float32."""
    config, read = checkpoint.config, checkpoint.read
    embedding = read("model.embed_tokens.weight")
    hidden = embedding[list(token_ids)]
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        normed = _norm(hidden, read(f"{prefix}.input_layernorm.weight"), config.rms_norm_eps)
        hidden = hidden + _attention(checkpoint, f"{prefix}.self_attn", normed)
        normed = _norm(hidden, read(f"{prefix}.post_attention_layernorm.weight"), config.rms_norm_eps)
        gate = normed @ read(f"{prefix}.mlp.gate_proj.weight").T
        up = normed @ read(f"{prefix}.mlp.up_proj.weight").T
        hidden = hidden + (gate / (1 + np.exp(-gate)) * up) @ read(f"{prefix}.mlp.down_proj.weight").T
    hidden = _norm(hidden, read("model.norm.weight"), config.rms_norm_eps)
    head = embedding if config.tie_word_embeddings else read("lm_head.weight")
    return hidden @ head.T


def _attention(checkpoint: Checkpoint, name: str, normed: np.ndarray) -> np.ndarray:
    config = checkpoint.config
    length = len(normed)

    def heads(which: str, count: int) -> np.ndarray:
        """(heads, tokens, head_dim)"""
        values = normed @ checkpoint.read(f"{name}.{which}_proj.weight").T
        if config.attention_bias:
            values = values + checkpoint.read(f"{name}.{which}_proj.bias")
        values = values.reshape(length, count, config.head_dim)
        if config.qk_norm and which != "v":
            values = _norm(values, checkpoint.read(f"{name}.{which}_norm.weight"), config.rms_norm_eps)
        return values.swapaxes(0, 1)

    q = _rotated(checkpoint, heads("q", config.num_heads))
    k = _rotated(checkpoint, heads("k", config.num_kv_heads))
    v = heads("v", config.num_kv_heads)
    group = config.num_heads // config.num_kv_heads
    k, v = np.repeat(k, group, axis=0), np.repeat(v, group, axis=0)
    scores = q @ k.swapaxes(1, 2) / np.sqrt(config.head_dim)
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = weights / weights.sum(axis=-1, keepdims=True)
    mixed = (weights @ v).swapaxes(0, 1).reshape(length, -1)
    return mixed @ checkpoint.read(f"{name}.o_proj.weight").T


def _rotated(checkpoint: Checkpoint, heads: np.ndarray) -> np.ndarray:
    frequencies, amplitude = rotation(checkpoint.config)
    angles = np.arange(heads.shape[1])[:, None] * frequencies
    cosine, sine = np.cos(angles) * amplitude, np.sin(angles) * amplitude
    first, second = np.split(heads, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _norm(values: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return values / np.sqrt((values**2).mean(axis=-1, keepdims=True) + epsilon) * weight
