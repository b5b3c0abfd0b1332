"""Models of random weights that compute in a millisecond, opened without files."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from workers.checkpoints import Checkpoint, ModelConfig
from workers.checkpoints.bf16 import to_bf16
from workers.checkpoints.shapes import expected_shapes
from workers.runners.base import FloatArray
from workers.runners.batch_rules import BatchLimits
from workers.runners.mlx.model import build_model
from workers.runners.mlx.number_types import NUMBER_TYPES
from workers.runners.mlx.sequence_kv import KvLayout
from workers.runners.mlx.session import Session
from workers.runners.mlx.sizing import KvPlan
from workers.runners.mlx.weights import load_weights, size_bytes

LLAMA = ModelConfig(
    architecture="llama",
    vocab_size=101,
    hidden_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=12,
    intermediate_size=64,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    rope_scaling=None,
    tie_word_embeddings=True,
    attention_bias=False,
    qk_norm=False,
    sliding_window=None,
    max_positions=4096,
)
MISTRAL = replace(LLAMA, architecture="mistral", tie_word_embeddings=False, head_dim=16, rope_theta=1e6)
QWEN2 = replace(LLAMA, architecture="qwen2", attention_bias=True, rms_norm_eps=1e-6)
QWEN3 = replace(LLAMA, architecture="qwen3", qk_norm=True, head_dim=16, tie_word_embeddings=False)


class RandomTensors:
    """Large enough to make attention choose, so that a wrong position is seen."""

    def __init__(self, config: ModelConfig, seed: int = 1) -> None:
        self.config = config
        self.path = Path("random.safetensors")
        draws = np.random.default_rng(seed)
        self._tensors = {
            name: (draws.normal(size=shape) * (3 / np.sqrt(shape[-1])) + (len(shape) == 1)).astype(np.float32)
            for name, shape in expected_shapes(config).items()
        }

    def names(self) -> list[str]:
        return list(self._tensors)

    def read(self, name: str) -> FloatArray:
        return self._tensors[name]

    def read_bf16(self, name: str) -> npt.NDArray[np.uint16]:
        return to_bf16(self._tensors[name])


def small_session(
    tensors: RandomTensors,
    *,
    compute_type: str = "f32",
    kv_type: str = "f32",
    context: int = 700,
    handles: int = 6,
    token_budget: int = 4200,
    keep_packed: bool = False,
    is_aborted: Callable[[], bool] = lambda: False,
) -> Session:
    config = tensors.config
    model = build_model(config)
    load_weights(model, cast(Checkpoint, tensors), compute_type, keep_packed=keep_packed)
    layout = KvLayout(
        config.num_layers, config.num_kv_heads, config.head_dim, NUMBER_TYPES[kv_type], NUMBER_TYPES[compute_type]
    )
    return Session(
        model,
        layout,
        KvPlan(context, handles, handles, token_budget),
        BatchLimits(1024, 1024, config.vocab_size),
        weights_bytes=size_bytes(model),
        poll_layers=1,
        is_aborted=is_aborted,
    )
