"""Tensors of a folder: one file, or shards that an index names."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workers.checkpoints.blocks import Blocks
from workers.checkpoints.json_file import read_json
from workers.checkpoints.safetensors_file import SafetensorsFile
from workers.runners.base import RunnerError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class FolderWeights:
    """Implements `Weights`."""

    def __init__(self, located: Mapping[str, SafetensorsFile]) -> None:
        self._located = dict(located)
        self._names = list(located)

    @property
    def dtype(self) -> str:
        """Of most tensors."""
        dtypes = [file.entries[name].dtype for name, file in self._located.items()]
        return max(set(dtypes), key=dtypes.count)

    def restrict(self, names: list[str]) -> None:
        """To the tensors of the model."""
        self._names = names
        self._located = {name: self._located[name] for name in names}

    def names(self) -> list[str]:
        return list(self._names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: file.entries[name].shape for name, file in self._located.items()}

    def read(self, name: str) -> npt.NDArray[np.float32]:
        return self._located[name].read(name)

    def read_bf16(self, name: str) -> npt.NDArray[np.uint16]:
        return self._located[name].read_bf16(name)

    def read_blocks(self, name: str) -> Blocks | None:
        """None: safetensors hold no such."""
        return None

    def close(self) -> None:
        self._located = {}


def weight_files(folder: Path) -> list[Path]:
    """The one file, or every shard. Raises RunnerError when there is neither, or a shard that is named is missing."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    shards = [folder / name for name in sorted(set(_weight_map(folder).values()))]
    for shard in shards:
        if not shard.is_file():
            raise RunnerError(f"{shard}: this shard, named by {INDEX}, is missing")
    return shards


def open_weights(folder: Path) -> FolderWeights:
    """Raises RunnerError as `weight_files` does, and for a shard that is damaged or lacks a tensor of the index."""
    files = {path.name: SafetensorsFile(path) for path in weight_files(folder)}
    if SINGLE in files:
        return FolderWeights(dict.fromkeys(files[SINGLE].entries, files[SINGLE]))
    located = {name: files[shard] for name, shard in _weight_map(folder).items()}
    for name, file in located.items():
        if name not in file.entries:
            raise RunnerError(f"{file.path}: tensor {name} is not in this shard, where {INDEX} has it")
    return FolderWeights(located)


def _weight_map(folder: Path) -> dict[str, str]:
    if not (folder / INDEX).is_file():
        raise RunnerError(f"{folder}: neither {SINGLE} nor {INDEX} is there")
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise RunnerError(f"{folder / INDEX}: no weight_map in it")
    for shard in weight_map.values():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise RunnerError(f"{folder / INDEX}: {shard!r} is no file of this folder")
    return weight_map
