"""The number format of weights, activations and KV: one for all of them."""

from enum import StrEnum

import torch

from workers.runners.base import RunnerError
from workers.runners.machine import Processor


class Precision(StrEnum):
    F32 = "f32"
    BF16 = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self is Precision.F32 else torch.bfloat16

    @property
    def num_bytes(self) -> int:
        return 4 if self is Precision.F32 else 2


def choose_precision(kv_type: str | None, device: torch.device, processor: Processor) -> Precision:
    """`kv_type` if it was given; else BF16 where the device computes with it, FP32 where it would be emulated."""
    if kv_type is not None:
        if kv_type not in list(Precision):
            raise RunnerError(f"kv_type {kv_type!r} is not one of {', '.join(Precision)}, which PyTorch computes with")
        return Precision(kv_type)
    has_bf16 = device.type != "cpu" or not processor.flags.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))
    return Precision.BF16 if has_bf16 else Precision.F32
