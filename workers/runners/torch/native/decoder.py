"""The decoder as one call of our own kernel (`step.cpp`), for processors with AVX2, or better AVX-512 VNNI."""

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from workers.checkpoints import ModelConfig
from workers.runners.torch.abort_flag import AbortFlag
from workers.runners.torch.attention import heads_of
from workers.runners.torch.decoder import DecoderSizes
from workers.runners.torch.kv_memory import KvMemory, KvShape
from workers.runners.torch.native.build import CannotBuild, kernel_library
from workers.runners.torch.native.library import (
    PANEL,
    STAGES,
    KernelLibrary,
    LayerPointers,
    MatrixFormat,
    MatrixPointers,
    ModelPointers,
    StepPointers,
)
from workers.runners.torch.native.packing import matrix_format, packed_weights
from workers.runners.torch.native.weight_cache import WeightCache
from workers.runners.torch.precision import KvType, Precision
from workers.runners.torch.rope import rope_table
from workers.runners.torch.step import Step
from workers.runners.torch.weights import WeightReader

_HEAD_DIMS = (32, 64, 96, 128, 256)
_DONE, _ABORTED = 0, 1


def why_not(config: ModelConfig) -> str | None:
    """What of a model the kernel was not written for."""
    if config.head_dim not in _HEAD_DIMS:
        return f"heads of {config.head_dim} are none of {', '.join(map(str, _HEAD_DIMS))}"
    for size in (config.hidden_size, config.intermediate_size):
        if size % PANEL:
            return f"a width of {size} is not a multiple of {PANEL}"
    return None


class NativeDecoder:
    """See `Decoder`. F16 or BF16 KV; float32 between products.

    Matrices that the checkpoint has in blocks of 32 numbers (GGUF) are computed with as they are, and what goes into
    these products is rounded to 8 bits by blocks. BF16 KV, which asks for precision, and other checkpoints have BF16
    weights as 16-bit integers.
    """

    layout = "16-token pages, keys by dimension"
    is_row_exact = True
    precision = Precision.BF16

    def __init__(self, reader: WeightReader, sizes: DecoderSizes, threads: int, kv_type: KvType | None = None) -> None:
        """Raises CannotBuild with the reason why there is no kernel."""
        config = reader.config
        reason = why_not(config)
        if reason is not None:
            raise CannotBuild(reason)
        # F16 by default: as large as BF16, and its rounding an eighth.
        self.kv_type = kv_type or KvType.F16
        if self.kv_type not in (KvType.F16, KvType.BF16):
            raise CannotBuild(f"KV in {self.kv_type} is none of f16, bf16")
        self._library = KernelLibrary(kernel_library())
        self._sizes = sizes
        has_blocks = self.kv_type is KvType.F16
        self._weights = packed_weights(reader, sizes.vocab_size, self._library, WeightCache(), has_blocks=has_blocks)
        is_in_blocks = matrix_format(self._weights, "0.down") is not MatrixFormat.WORDS
        self.name = f"own kernel, {'blocks of 8 bits' if is_in_blocks else '16 bits'}"
        self._logits = torch.empty((0, sizes.vocab_size), dtype=torch.float32)
        self._stage_ns = np.zeros(len(STAGES), np.int64)
        self._model = self._pointers(config, sizes, threads)
        self._memory: KvMemory | None = None
        self._scratch = self._library.new_scratch()
        self._finalizer = weakref.finalize(self, self._library.free_scratch, self._scratch)
        self.kv_shape = KvShape(config.num_layers, heads_of(config).page_elements, self.kv_type.dtype)

    def stage_seconds(self) -> dict[str, float]:
        return dict(zip(STAGES, (self._stage_ns * 1e-9).tolist(), strict=True))

    def run(self, step: Step, memory: KvMemory, abort_flag: AbortFlag) -> torch.Tensor | None:
        self._bind(memory)
        logits = self._logits_of(len(step.logit_rows))
        arrays = [
            np.ascontiguousarray(array)
            for array in (
                step.tokens,
                step.positions,
                step.logit_rows,
                step.starts,
                step.counts,
                step.lengths,
                step.tables,
            )
        ]
        pointers = StepPointers(
            len(step.tokens),
            len(step.counts),
            len(step.logit_rows),
            step.tables.shape[1],
            *map(_address, arrays),
            abort_flag.address,
            logits.data_ptr(),
            _address(self._stage_ns),
        )
        code = self._library.run_step(ctypes.byref(self._model), ctypes.byref(pointers), self._scratch)
        if code == _ABORTED:
            return None
        if code != _DONE:
            raise torch.OutOfMemoryError(f"no memory for a step of {len(step.tokens)} rows")
        return logits

    def _logits_of(self, count: int) -> torch.Tensor:
        """The same memory in every step: new memory would have to be cleared by the system each time."""
        if len(self._logits) < count:
            self._logits = torch.empty((count, self._sizes.vocab_size), dtype=torch.float32)
        return self._logits[:count]

    def _bind(self, memory: KvMemory) -> None:
        if memory is self._memory:
            return
        self._memory = memory
        self._model.keys = memory.keys.data_ptr()
        self._model.values = memory.values.data_ptr()
        self._model.layer_stride = memory.keys.stride(0)

    def _pointers(self, config: ModelConfig, sizes: DecoderSizes, threads: int) -> ModelPointers:
        rope = rope_table(config, sizes.context, torch.device("cpu"))
        self._rope = rope
        layers = [self._layer(f"{number}.") for number in range(config.num_layers)]
        return ModelPointers(
            num_layers=config.num_layers,
            hidden=config.hidden_size,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            intermediate=config.intermediate_size,
            vocab=sizes.vocab_size,
            threads=threads,
            kv_is_f16=self.kv_type is KvType.F16,
            eps=config.rms_norm_eps,
            layers=(LayerPointers * len(layers))(*layers),
            embedding=self._at("embedding"),
            norm=self._at("norm"),
            head=self._matrix("head"),
            cos=rope.cos.data_ptr(),
            sin=rope.sin.data_ptr(),
        )

    def _layer(self, prefix: str) -> LayerPointers:
        vectors = ("input_norm", "qkv_bias", "q_norm", "k_norm", "post_norm")
        matrices = ("qkv", "out", "gate_up", "down")
        return LayerPointers(
            **{name: self._at(prefix + name) for name in vectors},
            **{name: self._matrix(prefix + name) for name in matrices},
        )

    def _matrix(self, name: str) -> MatrixPointers:
        return MatrixPointers(self._at(f"{name}.panels"), self._at(f"{name}.units"), matrix_format(self._weights, name))

    def _at(self, name: str) -> int | None:
        """None for what this model does not have."""
        array = self._weights.get(name)
        return None if array is None else _address(array)


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.ctypes.data)
