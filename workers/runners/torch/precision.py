"""The number formats of weights and of KV."""

from enum import StrEnum

import torch

from workers.runners.base import RunnerError
from workers.runners.machine import Processor


class Precision(StrEnum):
    """Of weights. PyTorch's operations round what goes through them to it as well; our kernel does not."""

    F32 = "f32"
    BF16 = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self is Precision.F32 else torch.bfloat16


class KvType(StrEnum):
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self]


_DTYPES = {KvType.F32: torch.float32, KvType.F16: torch.float16, KvType.BF16: torch.bfloat16}


def choose_kv_type(name: str | None) -> KvType | None:
    """None: left to what computes."""
    if name is None:
        return None
    if name not in list(KvType):
        raise RunnerError(f"kv_type {name!r} is not one of {', '.join(KvType)}, which PyTorch computes with")
    return KvType(name)


def choose_precision(kv_type: KvType | None, device: torch.device, processor: Processor) -> Precision:
    """KV in FP32 or BF16 wants weights in it; else BF16 where the device computes with it, FP32 where it would be
    emulated."""
    if kv_type in (KvType.F32, KvType.BF16):
        return Precision(kv_type)
    has_bf16 = device.type != "cpu" or not processor.flags.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))
    return Precision.BF16 if has_bf16 else Precision.F32
