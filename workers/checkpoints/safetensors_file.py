"""One file of tensors in the safetensors format, mapped.

Read by hand: the format is a JSON table and bytes, and numpy has no bfloat16 for the package to hand over.
"""

import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from workers.checkpoints.bf16 import from_bf16, to_bf16
from workers.checkpoints.mapping import map_file
from workers.runners.base import RunnerError

_LENGTH = struct.Struct("<Q")
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class SafetensorsEntry(NamedTuple):
    """`start` counts from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class SafetensorsFile:
    """Raises RunnerError when the file does not hold what its table says. Arrays outlive it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = map_file(path)
        self.entries = _read_table(path, self._data)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        values = self._array(name)
        match self.entries[name].dtype:
            case "BF16":
                return from_bf16(values)
            case "F16":
                return values.astype(np.float32)
            case _:
                return values

    def read_bf16(self, name: str) -> npt.NDArray[np.uint16]:
        return self._array(name) if self.entries[name].dtype == "BF16" else to_bf16(self.read(name))

    def _array(self, name: str) -> npt.NDArray[Any]:
        entry = self.entries[name]
        array = np.frombuffer(self._data, _DTYPES[entry.dtype], math.prod(entry.shape), entry.start)
        # Some writers do not align.
        return (array if array.flags.aligned else array.copy()).reshape(entry.shape)


def _read_table(path: Path, data: mmap.mmap) -> dict[str, SafetensorsEntry]:
    if len(data) < _LENGTH.size:
        raise RunnerError(f"{path}: the file is truncated ({len(data)} bytes)")
    (length,) = _LENGTH.unpack_from(data, 0)
    start = _LENGTH.size + length
    if start > len(data):
        raise RunnerError(f"{path}: the file is truncated within its header, or no safetensors file")
    try:
        table = orjson.loads(data[_LENGTH.size : start])
        found = {name: _entry(path, name, value, start) for name, value in table.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RunnerError(f"{path}: not a safetensors file: its header cannot be read") from None
    for name, entry in found.items():
        if entry.start + math.prod(entry.shape) * np.dtype(_DTYPES[entry.dtype]).itemsize > len(data):
            raise RunnerError(f"{path}: the file is truncated: it ends within tensor {name}")
    return found


def _entry(path: Path, name: str, value: dict[str, Any], data_start: int) -> SafetensorsEntry:
    dtype = value["dtype"]
    if dtype not in _DTYPES:
        raise RunnerError(f"{path}: tensor {name} is of type {dtype}, which is not supported (F32, F16 and BF16 are)")
    shape = tuple(map(int, value["shape"]))
    begin, end = map(int, value["data_offsets"])
    if begin < 0 or end - begin != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
        raise RunnerError(f"{path}: tensor {name} of shape {list(shape)} does not fill its {end - begin} bytes")
    return SafetensorsEntry(dtype, shape, data_start + begin)
