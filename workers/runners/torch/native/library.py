"""The kernel's functions and structures, as `step.cpp` declares them."""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from enum import IntEnum
from pathlib import Path

from workers.runners.torch.native.build import CannotBuild

# Outputs that lie together.
PANEL = 32


class MatrixFormat(IntEnum):
    """How the numbers of a matrix are stored: 16-bit integers, or blocks of 32 of 8 or 4 bits."""

    WORDS = 0
    BYTES = 1
    NIBBLES = 2

    @property
    def block_bytes(self) -> int:
        """Of a panel and the 32 inputs of a block."""
        assert self is not MatrixFormat.WORDS, "no blocks"
        return 4 * PANEL + PANEL * 32 // (2 if self is MatrixFormat.NIBBLES else 1)


class MatrixPointers(Structure):
    _fields_ = (("panels", c_void_p), ("units", c_void_p), ("format", c_int32))


class LayerPointers(Structure):
    _fields_ = (
        ("input_norm", c_void_p),
        ("qkv", MatrixPointers),
        *((name, c_void_p) for name in ("qkv_bias", "q_norm", "k_norm")),
        ("out", MatrixPointers),
        ("post_norm", c_void_p),
        ("gate_up", MatrixPointers),
        ("down", MatrixPointers),
    )


class ModelPointers(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("num_layers", "hidden", "num_heads", "num_kv_heads", "head_dim")),
        *((name, c_int32) for name in ("intermediate", "vocab", "threads", "kv_is_f16")),
        ("eps", c_float),
        ("layer_stride", c_int64),
        ("layers", POINTER(LayerPointers)),
        *((name, c_void_p) for name in ("embedding", "norm")),
        ("head", MatrixPointers),
        *((name, c_void_p) for name in ("cos", "sin", "keys", "values")),
    )


class StepPointers(Structure):
    _fields_ = (
        *((name, c_int32) for name in ("num_rows", "num_sequences", "num_logits", "table_stride")),
        *((name, c_void_p) for name in ("tokens", "positions", "logit_rows", "starts", "counts", "lengths", "tables")),
        ("is_aborted", c_void_p),
        ("logits", c_void_p),
        ("stage_ns", c_void_p),
    )


STAGES = ("rows", "products", "attention", "head")


class KernelLibrary:
    """Calls give up the interpreter lock."""

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise CannotBuild(f"{path} does not load: {error}") from error
        self.name = path.stem
        self.pack_words = library.pack_words
        self.pack_words.argtypes = (c_void_p, c_int32, c_int32, c_void_p, c_void_p)
        self.pack_words.restype = None
        self.pack_blocks = library.pack_blocks
        self.pack_blocks.argtypes = (c_void_p, c_void_p, c_void_p, c_int32, c_int32, c_int32, c_void_p)
        self.pack_blocks.restype = None
        self.new_scratch = library.new_scratch
        self.new_scratch.restype = c_void_p
        self.free_scratch = library.free_scratch
        self.free_scratch.argtypes = (c_void_p,)
        self.free_scratch.restype = None
        self.run_step = library.run_step
        self.run_step.argtypes = (POINTER(ModelPointers), POINTER(StepPointers), c_void_p)
        self.run_step.restype = c_int32
