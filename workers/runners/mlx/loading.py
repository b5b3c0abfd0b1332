"""From a spec to a model that has computed once."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from workers.checkpoints import Checkpoint, ModelConfig, open_checkpoint
from workers.checkpoints.shapes import expected_shapes
from workers.runners.base import Batch, ForwardStatus, RunnerError, RunnerSpec
from workers.runners.batch_rules import BatchLimits
from workers.runners.llama_cpp.sizing import check_weights_fit
from workers.runners.mlx.device import Device, choose_device
from workers.runners.mlx.model import build_model
from workers.runners.mlx.number_types import DEFAULT_COMPUTE_TYPE, NUMBER_TYPES, check_kv_type
from workers.runners.mlx.sequence_kv import KvLayout
from workers.runners.mlx.session import Session
from workers.runners.mlx.sizing import KvDemand, plan_kv
from workers.runners.mlx.weights import load_weights, size_bytes

DEFAULT_BATCH_TOKENS = 512
# Rows of logits that a step may ask for where sequences are few: room for verified drafts.
_MIN_LOGIT_ROWS = 128
# Buffers that MLX keeps for the next step instead of giving them back.
_BUFFER_CACHE_BYTES = 256 * 2**20


class Choices(NamedTuple):
    """`compute_type` of activations, and of weights that are not quantised. `keep_packed`: quantised weights stay as
    they are where MLX has kernels for them; None leaves it to the device."""

    compute_type: str = DEFAULT_COMPUTE_TYPE
    keep_packed: bool | None = None


class Loaded(NamedTuple):
    session: Session
    checkpoint: Checkpoint
    device: Device
    compute_type: str
    kv_type: str
    is_packed: bool


def load(spec: RunnerSpec, choices: Choices, stack: ExitStack, is_aborted: Callable[[], bool]) -> Loaded:
    """Everything, to be closed by `stack`. Raises RunnerError with the reason."""
    device = choose_device(spec)
    kv_type = check_kv_type(spec.kv_type, choices.compute_type)
    mx.set_default_device(device.device)
    mx.set_cache_limit(_BUFFER_CACHE_BYTES)
    stack.callback(mx.clear_cache)
    checkpoint = open_checkpoint(Path(spec.source))
    stack.callback(checkpoint.close)
    model = build_model(checkpoint.config)
    keep_packed = device.is_gpu if choices.keep_packed is None else choices.keep_packed
    if not keep_packed:
        _check_memory(checkpoint, choices, device)
    is_packed = load_weights(model, checkpoint, choices.compute_type, keep_packed=keep_packed)
    layout = _layout(checkpoint.config, kv_type, choices.compute_type)
    plan = plan_kv(
        KvDemand(
            context=spec.context,
            sequences=spec.sequences,
            max_context=checkpoint.config.max_context,
            bytes_per_token=layout.bytes_per_token,
            available_bytes=device.available_bytes(),
        )
    )
    session = Session(
        model,
        layout,
        plan,
        _limits(spec, plan.sequences, checkpoint.tokenizer.vocab_size),
        weights_bytes=size_bytes(model),
        poll_layers=device.poll_layers,
        is_aborted=is_aborted,
    )
    _try_step(session)
    return Loaded(session, checkpoint, device, choices.compute_type, kv_type, is_packed)


def _check_memory(checkpoint: Checkpoint, choices: Choices, device: Device) -> None:
    """Widened weights, of which the size is known beforehand."""
    num_elements = sum(math.prod(shape) for shape in expected_shapes(checkpoint.config).values())
    size = num_elements * NUMBER_TYPES[choices.compute_type].size
    check_weights_fit(checkpoint.path.name, size, device.available_bytes())


def _layout(config: ModelConfig, kv_type: str, compute_type: str) -> KvLayout:
    return KvLayout(
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        dtype=NUMBER_TYPES[kv_type],
        compute_dtype=NUMBER_TYPES[compute_type],
    )


def _limits(spec: RunnerSpec, sequences: int, vocab_size: int) -> BatchLimits:
    batch_tokens = DEFAULT_BATCH_TOKENS if spec.batch_tokens is None else spec.batch_tokens
    if batch_tokens < 1:
        raise RunnerError(f"batch_tokens must be at least 1, not {batch_tokens}")
    return BatchLimits(batch_tokens, min(batch_tokens, max(_MIN_LOGIT_ROWS, sequences)), vocab_size)


def _try_step(session: Session) -> None:
    """Prove that the model computes."""
    handle = session.table.create()
    assert handle is not None
    zero = np.zeros(1, np.int32)
    result = session.forward(Batch(zero, zero + handle.id, zero, zero))
    if result.status is not ForwardStatus.OK or result.logits is None or not np.isfinite(result.logits).all():
        raise RunnerError("the trial step gave logits that are not numbers")
    session.table.release(handle)
