"""Rotary positions, from the configuration as all runners read it.

mlx-lm's own are not used: its Llama takes `rope_theta` from the top level of a folder's configuration alone, and so
computes another model from a folder that keeps it under `rope_parameters`; and it knows no table of factors.
"""

import mlx.core as mx
import mlx.nn as nn

from workers.checkpoints import ModelConfig
from workers.checkpoints.rope import rotation


class Rope:
    """Called as mlx-lm's models call theirs: (rows, heads, tokens, head size), and for each row where it starts."""

    def __init__(self, config: ModelConfig) -> None:
        frequencies, self._amplitude = rotation(config)
        self._head_dim = config.head_dim
        self._wavelengths = mx.array(1 / frequencies)

    def __call__(self, x: mx.array, offset: mx.array) -> mx.array:
        if self._amplitude != 1:
            x = x * self._amplitude
        return mx.fast.rope(
            x, self._head_dim, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._wavelengths
        )


def set_rope(model: nn.Module, config: ModelConfig) -> None:
    rope = Rope(config)
    for layer in model.layers:
        layer.self_attn.rope = rope
