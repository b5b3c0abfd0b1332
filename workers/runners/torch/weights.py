"""A checkpoint's tensors as the decoder uses them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from workers.checkpoints import Checkpoint, ModelConfig
from workers.runners.torch.precision import Precision


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """q, k and v are one matrix, gate and up another. Norms are float32. `q_norm` and `k_norm` only some models
    have."""

    input_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: torch.Tensor
    post_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class WeightReader:
    """Reads tensor by tensor, so that no more than a layer is in memory twice."""

    def __init__(self, checkpoint: Checkpoint, precision: Precision, device: torch.device) -> None:
        self.config: ModelConfig = checkpoint.config
        self._checkpoint = checkpoint
        self._names = frozenset(checkpoint.names())
        self._precision = precision
        self._device = device

    @property
    def content(self) -> str:
        """What tells these weights from others."""
        return self._checkpoint.fingerprint

    def embedding(self) -> torch.Tensor:
        return self._matrix("model.embed_tokens.weight")

    def norm(self) -> torch.Tensor:
        return self._vector("model.norm.weight")

    def head(self, embedding: torch.Tensor, num_rows: int) -> torch.Tensor:
        """The rows that stand for tokens: an embedding may have more."""
        matrix = embedding if self.config.tie_word_embeddings else self._matrix("lm_head.weight")
        return matrix[:num_rows]

    def layers(self) -> Iterator[LayerWeights]:
        for index in range(self.config.num_layers):
            yield self._layer(f"model.layers.{index}")

    def _layer(self, name: str) -> LayerWeights:
        attention, mlp = f"{name}.self_attn", f"{name}.mlp"
        has_bias = self.config.attention_bias
        return LayerWeights(
            input_norm=self._vector(f"{name}.input_layernorm.weight"),
            qkv=torch.cat([self._matrix(f"{attention}.{part}_proj.weight") for part in "qkv"]),
            qkv_bias=torch.cat([self._bias(f"{attention}.{part}_proj.bias") for part in "qkv"]) if has_bias else None,
            q_norm=self._vector(f"{attention}.q_norm.weight") if self.config.qk_norm else None,
            k_norm=self._vector(f"{attention}.k_norm.weight") if self.config.qk_norm else None,
            out=self._matrix(f"{attention}.o_proj.weight"),
            post_norm=self._vector(f"{name}.post_attention_layernorm.weight"),
            gate_up=torch.cat([self._matrix(f"{mlp}.{part}_proj.weight") for part in ("gate", "up")]),
            down=self._matrix(f"{mlp}.down_proj.weight"),
        )

    def _matrix(self, name: str) -> torch.Tensor:
        if self._precision is Precision.BF16:
            return torch.tensor(self._checkpoint.read_bf16(name)).view(torch.bfloat16).to(self._device)
        return torch.tensor(self._checkpoint.read(name)).to(self._device)

    def _bias(self, name: str) -> torch.Tensor:
        return self._vector(name).to(self._precision.dtype)

    def _vector(self, name: str) -> torch.Tensor:
        return torch.tensor(self._checkpoint.read(name)).to(self._device)
