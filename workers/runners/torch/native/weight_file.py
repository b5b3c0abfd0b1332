"""Weights as the kernel reads them, in one file that processes map and share.

Arrays one behind another, each on a boundary of 64 bytes; where they lie, as JSON; the length of that; SHA-256 over all
of it.
"""

import hashlib
import json
import mmap
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weights = dict[str, Array]

_ALIGNMENT = 64
_LENGTH_BYTES = 8
_DIGEST_BYTES = hashlib.sha256().digest_size
# What a disk keeps free for others.
_FREE_BYTES = 2**31


class SpoiltFile(Exception):
    """What is wrong with a file of weights."""


def write_weights(path: Path, key: str, weights: Iterable[tuple[str, Array]]) -> None:
    """Raises OSError, also where the disk would be nearly full."""
    places: dict[str, tuple[int, int]] = {}
    digest = hashlib.sha256()
    with path.open("xb") as file:

        def put(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        for name, array in weights:
            if shutil.disk_usage(path.parent).free < array.nbytes + _FREE_BYTES:
                raise OSError("the disk is nearly full")
            put(bytes(-file.tell() % _ALIGNMENT))
            places[name] = file.tell(), array.nbytes
            put(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        index = json.dumps({"key": key, "places": places}).encode()
        put(index)
        put(len(index).to_bytes(_LENGTH_BYTES, "little"))
        file.write(digest.digest())


def map_weights(path: Path, key: str) -> Weights:
    """Bytes by name, read-only and unmapped with the last of them. All of the file is read and checked. Raises
    SpoiltFile, and OSError."""
    with path.open("rb") as file:
        if file.seek(0, 2) < _LENGTH_BYTES + _DIGEST_BYTES:
            raise SpoiltFile("it is too short")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    content = np.frombuffer(data, np.uint8)
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.sha256(body.data).digest() != digest.tobytes():
        raise SpoiltFile("its checksum is another")
    end = len(body) - _LENGTH_BYTES
    index = json.loads(body[end - int.from_bytes(body[end:].tobytes(), "little") : end].tobytes())
    if index["key"] != key:
        raise SpoiltFile("it holds other weights")
    return {name: content[start : start + size] for name, (start, size) in index["places"].items()}
