"""Tensors out of GGUF files, dequantised one by one."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from workers.checkpoints.bf16 import from_bf16, to_bf16
from workers.checkpoints.blocks import Blocks, blocks_of
from workers.checkpoints.gguf_header import GgufHeader, TensorEntry, read_header
from workers.checkpoints.gguf_names import hf_name
from workers.checkpoints.mapping import map_file
from workers.checkpoints.model_config import ModelConfig
from workers.checkpoints.requirements import need
from workers.checkpoints.rotation_order import neighbours_to_halves
from workers.runners.base import RunnerError

_ROTATED = re.compile(r"self_attn\.([qk])_proj\.")


class GgufFile:
    """A mapped file. The mapping lives as long as arrays made from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = map_file(path)
        self.header: GgufHeader = read_header(path, self._data)
        self._gguf = need("gguf")
        for name, entry in self.header.tensors.items():
            self._check(name, entry)

    def raw(self, entry: TensorEntry) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, (rows, bytes of a row)."""
        rows, row_bytes = self._row_layout(entry)
        return np.frombuffer(self._data, np.uint8, rows * row_bytes, entry.start).reshape(rows, row_bytes)

    def quantisation(self, entry: TensorEntry) -> Any:
        return self._gguf.GGMLQuantizationType(entry.type_id)

    def _check(self, name: str, entry: TensorEntry) -> None:
        try:
            kind = self.quantisation(entry)
            rows, row_bytes = self._row_layout(entry)
        except ValueError:
            raise RunnerError(f"{self.path}: tensor {name} is of the unknown type {entry.type_id}") from None
        if not self._can_dequantise(kind):
            raise RunnerError(f"{self.path}: tensor {name} is of type {kind.name}, which is not supported")
        if entry.start + rows * row_bytes > len(self._data):
            raise RunnerError(f"{self.path}: the file is truncated: it ends within tensor {name}")

    def _row_layout(self, entry: TensorEntry) -> tuple[int, int]:
        *leading, row = entry.shape
        block_size, block_bytes = self._gguf.GGML_QUANT_SIZES[self.quantisation(entry)]
        if row % block_size:
            raise ValueError
        return math.prod(leading), row // block_size * block_bytes

    def _can_dequantise(self, kind: Any) -> bool:
        return kind.name in ("F32", "F16", "BF16") or kind in self._gguf.quants._type_traits


class _Located(NamedTuple):
    file: GgufFile
    entry: TensorEntry


class GgufWeights:
    """Implements `Weights` over all files of a model."""

    def __init__(self, files: Sequence[GgufFile]) -> None:
        self._located = {
            hf_name(name): _Located(file, entry) for file in files for name, entry in file.header.tensors.items()
        }
        self._names: list[str] = list(self._located)
        self._reordered_heads: Mapping[str, int] = {}

    def restrict(self, names: list[str], config: ModelConfig) -> None:
        """To the tensors of the model, with q and k in the order of halves."""
        self._names = names
        self._located = {name: self._located[name] for name in names}
        if config.architecture == "llama":
            self._reordered_heads = {"q": config.num_heads, "k": config.num_kv_heads}

    def names(self) -> list[str]:
        return list(self._names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: located.entry.shape for name, located in self._located.items()}

    def read(self, name: str) -> npt.NDArray[np.float32]:
        file, entry = self._located[name]
        raw, kind = self._rows(name), file.quantisation(entry).name
        if kind == "F32":
            values = raw.view("<f4")
        elif kind == "F16":
            values = raw.view("<f2").astype(np.float32)
        elif kind == "BF16":
            values = from_bf16(raw.view("<u2"))
        else:
            values = need("gguf.quants").dequantize(raw, file.quantisation(entry))
        return values.reshape(entry.shape)

    def read_bf16(self, name: str) -> npt.NDArray[np.uint16]:
        file, entry = self._located[name]
        if file.quantisation(entry).name == "BF16":
            return self._rows(name).view("<u2").reshape(entry.shape)
        return to_bf16(self.read(name))

    def read_blocks(self, name: str) -> Blocks | None:
        file, entry = self._located[name]
        if len(entry.shape) != 2:
            return None
        return blocks_of(file.quantisation(entry).name, self._rows(name))

    def close(self) -> None:
        self._located = {}

    def _rows(self, name: str) -> npt.NDArray[np.uint8]:
        file, entry = self._located[name]
        raw = file.raw(entry)
        match = _ROTATED.search(name)
        if match is None or match[1] not in self._reordered_heads:
            return raw
        # Rows are stored one by one, also where they are quantised: no need to widen them first. Of a bias each number
        # is a row.
        rows = raw.reshape(entry.shape[0], -1)
        return neighbours_to_halves(rows, self._reordered_heads[match[1]]).reshape(raw.shape)
