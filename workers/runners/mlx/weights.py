"""A checkpoint's tensors in an mlx-lm model."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from workers.checkpoints import Checkpoint
from workers.runners.base import RunnerError
from workers.runners.mlx.number_types import NUMBER_TYPES
from workers.runners.mlx.packed import quantise_modules, read_packed


def load_weights(model: nn.Module, checkpoint: Checkpoint, compute_type: str, *, keep_packed: bool) -> bool:
    """Fill the model; every parameter gets a tensor, and no tensor is left over. True when some stayed quantised.

    Raises RunnerError when model and checkpoint do not fit.
    """
    packed = read_packed(checkpoint, NUMBER_TYPES[compute_type]) if keep_packed else {}
    quantise_modules(model, packed)
    weights: list[tuple[str, mx.array]] = []
    for name in checkpoint.names():
        module = name.removesuffix(".weight")
        if module in packed:
            weights += [(f"{module}.{field}", array) for field, array in packed[module]._asdict().items()]
        else:
            weights.append((name, _read(checkpoint, name, compute_type)))
    try:
        model.load_weights(weights)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise RunnerError(f"{checkpoint.path} does not fit mlx-lm's model: {reason[:200]}") from error
    mx.eval(model.parameters())
    return bool(packed)


def size_bytes(model: nn.Module) -> int:
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


def _read(checkpoint: Checkpoint, name: str, compute_type: str) -> mx.array:
    if compute_type == "bf16":
        return mx.array(checkpoint.read_bf16(name)).view(mx.bfloat16)
    return mx.array(checkpoint.read(name)).astype(NUMBER_TYPES[compute_type])
