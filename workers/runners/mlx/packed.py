"""A GGUF file's quantised tensors as MLX computes with them: not widened, but repacked."""

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from workers.checkpoints import Checkpoint
from workers.checkpoints.gguf_names import hf_name
from workers.checkpoints.rotation_order import neighbours_to_halves
from workers.runners.model_files import model_files

# GGML's blocks have this many numbers.
_GROUP_SIZE = 32


class PackedTensor(NamedTuple):
    """Rows of `bits`-bit numbers in 32-bit words, and for each group of a row a scale and a bias."""

    weight: mx.array
    scales: mx.array
    biases: mx.array

    @property
    def bits(self) -> int:
        return int(32 * self.weight.shape[1] // (_GROUP_SIZE * self.scales.shape[1]))


def read_packed(checkpoint: Checkpoint, dtype: mx.Dtype) -> dict[str, PackedTensor]:
    """The tensors that MLX takes as they are (Q4_0, Q4_1 and Q8_0), by the names of their modules, with scales of
    `dtype`. Empty for a source of another kind, and for a file that has tensors which MLX cannot read (K-quants)."""
    if checkpoint.path.suffix != ".gguf":
        return {}
    arrays: dict[str, mx.array] = {}
    try:
        for file in model_files(checkpoint.path):
            arrays.update(mx.load(str(file)))
    except (RuntimeError, ValueError):
        return {}
    wanted = {name.removesuffix(".weight") for name in checkpoint.names()}
    packed = {}
    for name in arrays:
        module = hf_name(f"{name.removesuffix('.scales')}.weight").removesuffix(".weight")
        if name.endswith(".scales") and module in wanted:
            parts = (arrays[f"{name.removesuffix('scales')}{part}"] for part in PackedTensor._fields)
            weight, scales, biases = (_in_halves(part, module, checkpoint) for part in parts)
            packed[module] = PackedTensor(weight, scales.astype(dtype), biases.astype(dtype))
    return packed


def quantise_modules(model: nn.Module, packed: dict[str, PackedTensor]) -> None:
    """Make room for packed tensors where there are some."""

    def parameters(path: str, module: nn.Module) -> bool | dict[str, int]:
        return {"group_size": _GROUP_SIZE, "bits": packed[path].bits} if path in packed else False

    nn.quantize(model, class_predicate=parameters)


def _in_halves(part: mx.array, module: str, checkpoint: Checkpoint) -> mx.array:
    """Rows of q and k in the order that the model rotates them in. Rows are packed one by one: they can be moved."""
    config = checkpoint.config
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(module.rpartition(".")[2])
    if heads is None or config.architecture != "llama":
        return part
    return part[mx.array(neighbours_to_halves(np.arange(part.shape[0]), heads))]
