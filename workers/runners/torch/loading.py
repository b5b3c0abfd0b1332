"""From a spec to a model that has computed once."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from workers.checkpoints import Checkpoint, open_checkpoint
from workers.runners.base import Batch, ForwardStatus, RunnerError, RunnerSpec
from workers.runners.batch_rules import BatchLimits
from workers.runners.machine import processor
from workers.runners.torch.abort_flag import AbortFlag
from workers.runners.torch.decoder import Decoder, DecoderSizes
from workers.runners.torch.device import choose_device, free_bytes, use_threads
from workers.runners.torch.eager import EagerDecoder
from workers.runners.torch.kv_memory import KvMemory
from workers.runners.torch.native.build import CannotBuild
from workers.runners.torch.native.decoder import NativeDecoder
from workers.runners.torch.page_tables import PageTables
from workers.runners.torch.pages import PagePool
from workers.runners.torch.precision import KvType, Precision, choose_kv_type, choose_precision
from workers.runners.torch.session import Session
from workers.runners.torch.sizing import KvPlan, Room, choose_context, plan_kv
from workers.runners.torch.weights import WeightReader

logger = logging.getLogger(__name__)

DEFAULT_BATCH_TOKENS = 512
# Rows of logits that a step may ask for where sequences are few: room for verified drafts.
_MIN_LOGIT_ROWS = 128


class Computer(NamedTuple):
    """What computes, and in what."""

    device: torch.device
    precision: Precision
    kv_type: KvType | None
    threads: int

    @property
    def wants_kernel(self) -> bool:
        """Of numbers of 32 bits PyTorch's operations keep more."""
        return self.device.type == "cpu" and self.kv_type is not KvType.F32


class Loaded(NamedTuple):
    checkpoint: Checkpoint
    decoder: Decoder
    session: Session
    plan: KvPlan
    limits: BatchLimits
    device: torch.device
    threads: int


def load(spec: RunnerSpec, *, has_kernel: bool = True) -> Loaded:
    """Everything. Raises RunnerError with the reason."""
    batch_tokens = _batch_tokens(spec)
    threads = use_threads(spec)
    with ExitStack() as stack:
        checkpoint = open_checkpoint(Path(spec.source))
        stack.callback(checkpoint.close)
        config, vocab_size = checkpoint.config, checkpoint.tokenizer.vocab_size
        device = choose_device(spec.gpu_layers, config.num_layers)
        kv_type = choose_kv_type(spec.kv_type)
        precision = choose_precision(kv_type, device, processor())
        context = choose_context(spec, config)
        try:
            sizes = DecoderSizes(vocab_size, context)
            computer = Computer(device, precision, kv_type, threads)
            decoder = make_decoder(checkpoint, sizes, computer, has_kernel=has_kernel)
            room = Room(free_bytes(device), decoder.kv_shape.page_bytes, threads, device.type != "cpu")
            plan = plan_kv(spec, context, room)
            memory = KvMemory(decoder.kv_shape, plan.pages, device)
        except RuntimeError as error:
            # Out of memory, on CPU and GPU.
            raise RunnerError(f"{spec.source} does not load: {str(error).splitlines()[0]}") from error
    limits = BatchLimits(batch_tokens, min(batch_tokens, max(_MIN_LOGIT_ROWS, plan.sequences)), vocab_size)
    tables = PageTables(PagePool(plan.pages), plan.handles, context)
    session = Session(decoder, memory, tables, limits)
    _compute_once(session)
    return Loaded(checkpoint, decoder, session, plan, limits, device, threads)


def make_decoder(checkpoint: Checkpoint, sizes: DecoderSizes, computer: Computer, *, has_kernel: bool) -> Decoder:
    """Our own kernel where it runs and is faster, else PyTorch's operations."""
    if has_kernel and computer.wants_kernel:
        try:
            reader = WeightReader(checkpoint, Precision.BF16, computer.device)
            return NativeDecoder(reader, sizes, computer.threads, computer.kv_type)
        except CannotBuild as error:
            logger.warning("computing with PyTorch's operations: %s", error)
    reader = WeightReader(checkpoint, computer.precision, computer.device)
    return EagerDecoder(reader, computer.precision, computer.device, sizes, computer.kv_type)


def _batch_tokens(spec: RunnerSpec) -> int:
    batch_tokens = DEFAULT_BATCH_TOKENS if spec.batch_tokens is None else spec.batch_tokens
    if batch_tokens < 1:
        raise RunnerError(f"batch_tokens must be at least 1, not {batch_tokens}")
    return batch_tokens


def _compute_once(session: Session) -> None:
    """Prove that the model computes."""
    handle = session.tables.create()
    assert handle is not None
    zero = np.zeros(1, np.int32)
    result = session.forward(Batch(zero, np.array([handle.id], np.int32), zero, zero), AbortFlag())
    if result.status is not ForwardStatus.OK or result.logits is None:
        raise RunnerError("the device has no memory for a single step")
    if not np.isfinite(result.logits).all():
        raise RunnerError("the trial step gave logits that are not numbers")
    session.tables.release(handle)
