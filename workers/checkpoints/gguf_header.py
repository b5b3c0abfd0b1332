"""What stands before the tensors in a GGUF file: metadata, and a table of tensors.

Read by hand: the `gguf` package takes seconds over a vocabulary, where this takes a fraction of one.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workers.runners.base import RunnerError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}
_MAX_DIMENSIONS = 4


class TensorEntry(NamedTuple):
    """`shape` as numpy has it, the longest stride first; `type_id` is GGML's; `start` counts from the file's start."""

    shape: tuple[int, ...]
    type_id: int
    start: int


class GgufHeader(NamedTuple):
    metadata: dict[str, Any]
    tensors: dict[str, TensorEntry]


def read_header(path: Path, data: mmap.mmap) -> GgufHeader:
    """Raises RunnerError for what is no GGUF file, or ends too early."""
    if data[: len(MAGIC)] != MAGIC:
        raise RunnerError(f"{path}: not a GGUF file")
    try:
        return _read(path, _Cursor(data, len(MAGIC)))
    except (struct.error, _Short):
        raise RunnerError(f"{path}: the file is truncated: it ends within its header ({len(data)} bytes)") from None


def _read(path: Path, cursor: "_Cursor") -> GgufHeader:
    version = cursor.u32()
    if version not in _VERSIONS:
        raise RunnerError(f"{path}: GGUF version {version} is not supported (2 and 3 are)")
    num_tensors, num_values = cursor.u64(), cursor.u64()
    metadata = {}
    for _ in range(num_values):
        name, type_id = cursor.string(), cursor.u32()
        metadata[name] = _value(path, cursor, name, type_id)
    entries = [_entry(path, cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise RunnerError(f"{path}: general.alignment is {alignment!r}")
    data_start = -(-cursor.position // alignment) * alignment
    return GgufHeader(metadata, {name: entry._replace(start=data_start + entry.start) for name, entry in entries})


def _entry(path: Path, cursor: "_Cursor") -> tuple[str, TensorEntry]:
    name, num_dimensions = cursor.string(), cursor.u32()
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise RunnerError(f"{path}: tensor {name} has {num_dimensions} dimensions")
    shape = tuple(reversed([cursor.u64() for _ in range(num_dimensions)]))
    return name, TensorEntry(shape, cursor.u32(), cursor.u64())


def _value(path: Path, cursor: "_Cursor", name: str, type_id: int) -> Any:
    if type_id == _STRING:
        return cursor.string()
    if type_id == _ARRAY:
        item_type, count = cursor.u32(), cursor.u64()
        if item_type == _STRING:
            return cursor.strings(count)
        if item_type != _ARRAY:
            return cursor.numbers(_dtype(path, name, item_type), count)
        return [_value(path, cursor, name, _ARRAY) for _ in range(count)]
    value = cursor.numbers(_dtype(path, name, type_id), 1)[0]
    if type_id == _BOOL:
        return bool(value)
    # 1e-05 was meant, not 9.999999747378752e-06.
    return float(str(value)) if isinstance(value, np.float32) else value.item()


def _dtype(path: Path, name: str, type_id: int) -> str:
    dtype = "<u1" if type_id == _BOOL else _NUMBERS.get(type_id)
    if dtype is None:
        raise RunnerError(f"{path}: metadata {name} is of the unknown type {type_id}")
    return dtype


class _Short(Exception):
    """The data ends before what was announced."""


class _Cursor:
    def __init__(self, data: mmap.mmap, position: int) -> None:
        self._data = data
        self._size = len(data)
        self.position = position

    def u32(self) -> int:
        return self._unpack(_U32)

    def u64(self) -> int:
        return self._unpack(_U64)

    def string(self) -> str:
        return self._take(self.u64()).decode(errors="replace")

    def strings(self, count: int) -> list[str]:
        if count > (self._size - self.position) // _U64.size:
            raise _Short
        data, position = self._data, self.position
        read: Callable[[mmap.mmap, int], tuple[int]] = _U64.unpack_from
        found = []
        for _ in range(count):
            start = position + 8
            position = start + read(data, position)[0]
            found.append(data[start:position])
        if position > self._size:
            raise _Short
        self.position = position
        return [text.decode(errors="replace") for text in found]

    def numbers(self, dtype: str, count: int) -> Any:
        return np.frombuffer(self._take(count * np.dtype(dtype).itemsize), dtype)

    def _unpack(self, form: struct.Struct) -> int:
        (value,) = form.unpack_from(self._data, self.position)
        self.position += form.size
        return int(value)

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > self._size:
            raise _Short
        data = self._data[self.position : end]
        self.position = end
        return data
