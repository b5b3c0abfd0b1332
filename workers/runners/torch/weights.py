"""A checkpoint's tensors as the decoder uses them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from workers.checkpoints import Checkpoint, ModelConfig
from workers.checkpoints.blocks import Blocks, joined
from workers.runners.torch.precision import Precision

_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
_LAYER = "model.layers."
# And what of a checkpoint they are made of.
MATRICES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


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
        return self._matrix(_EMBEDDING)

    def norm(self) -> torch.Tensor:
        return self._vector("model.norm.weight")

    def head(self, embedding: torch.Tensor, num_rows: int) -> torch.Tensor:
        """The rows that stand for tokens: an embedding may have more."""
        matrix = embedding if self.config.tie_word_embeddings else self._matrix(_HEAD)
        return matrix[:num_rows]

    def head_blocks(self, num_rows: int) -> Blocks | None:
        """The same, where the checkpoint has them in blocks."""
        blocks = self._checkpoint.read_blocks(_EMBEDDING if self.config.tie_word_embeddings else _HEAD)
        return None if blocks is None else blocks.rows(slice(num_rows))

    def layers(self) -> Iterator[LayerWeights]:
        for layer in range(self.config.num_layers):
            matrices = {name: self.matrix(layer, name) for name in MATRICES}
            yield LayerWeights(**matrices, **self.vectors(layer))

    def matrix(self, layer: int, name: str) -> torch.Tensor:
        """One of `MATRICES`."""
        return torch.cat([self._matrix(_part(layer, part)) for part in MATRICES[name]])

    def blocks(self, layer: int, name: str) -> Blocks | None:
        """The same, where the checkpoint has all parts of it in blocks."""
        parts = []
        for part in MATRICES[name]:
            blocks = self._checkpoint.read_blocks(_part(layer, part))
            if blocks is None:
                return None
            parts.append(blocks)
        return joined(parts)

    def vectors(self, layer: int) -> dict[str, torch.Tensor | None]:
        """All else of `LayerWeights`."""
        attention, has_bias, has_norm = "self_attn", self.config.attention_bias, self.config.qk_norm
        biases = [self._bias(f"{_LAYER}{layer}.{attention}.{part}_proj.bias") for part in "qkv"] if has_bias else []
        return {
            "input_norm": self._vector(_part(layer, "input_layernorm")),
            "qkv_bias": torch.cat(biases) if biases else None,
            "q_norm": self._vector(_part(layer, f"{attention}.q_norm")) if has_norm else None,
            "k_norm": self._vector(_part(layer, f"{attention}.k_norm")) if has_norm else None,
            "post_norm": self._vector(_part(layer, "post_attention_layernorm")),
        }

    def _matrix(self, name: str) -> torch.Tensor:
        if self._precision is Precision.BF16:
            return torch.tensor(self._checkpoint.read_bf16(name)).view(torch.bfloat16).to(self._device)
        return torch.tensor(self._checkpoint.read(name)).to(self._device)

    def _bias(self, name: str) -> torch.Tensor:
        return self._vector(name).to(self._precision.dtype)

    def _vector(self, name: str) -> torch.Tensor:
        return torch.tensor(self._checkpoint.read(name)).to(self._device)


def _part(layer: int, name: str) -> str:
    return f"{_LAYER}{layer}.{name}.weight"
