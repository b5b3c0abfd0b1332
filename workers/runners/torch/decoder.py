"""What computes a step, and nothing of handles and pages' owners."""

from dataclasses import dataclass
from typing import Protocol

import torch

from workers.runners.torch.abort_flag import AbortFlag
from workers.runners.torch.kv_memory import KvMemory, KvShape
from workers.runners.torch.precision import KvType, Precision
from workers.runners.torch.step import Step


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """`vocab_size` is the rows of logits that stand for tokens, `context` the most tokens of a sequence."""

    vocab_size: int
    context: int


class Decoder(Protocol):
    """`layout` names how a page's elements lie, for exported KV. `is_row_exact`: a row's logits depend on nothing else
    in the batch, to the bit. `name` is for the description."""

    name: str
    layout: str
    is_row_exact: bool
    precision: Precision
    kv_type: KvType
    kv_shape: KvShape

    def stage_seconds(self) -> dict[str, float]:
        """What all steps so far have spent, by what they did; empty where that is not known."""
        ...

    def run(self, step: Step, memory: KvMemory, abort_flag: AbortFlag) -> torch.Tensor | None:
        """Write the rows' keys and values to their pages; float32 logits of the rows asked for, on any device. None
        when it was aborted, which is polled between layers."""
        ...
