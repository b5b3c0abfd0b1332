"""What measuring would take, told from the model's files: too much of it, and the order of preference has to do."""

from collections.abc import Sequence
from typing import NamedTuple

from ops.calibration.key import weight_files
from ops.calibration.steps import PREFILL_TOKENS, PROMPT_TOKENS
from ops.serving.memory import estimate
from ops.serving.sources import Source, SourceKind
from ops.settings.settings import ModelSettings

# A quantised file has 4 bits a weight or more; torch and mlx may make 16 of them.
_WIDENED = 4
# Interpreter and library.
_PROCESS_BYTES = 512 * 2**20
# KV takes what there is, and at the least this share is enough.
_KV_SHARE = 0.25
# Seconds of a process that opens a tiny model and times its steps, and bytes of weights that are read and widened in
# one; on the safe side of what was seen.
_START_S = 12.0
_BYTES_PER_S = 100e6
# Operations a second of one processor: half of what llama.cpp's prefill comes to on one with AVX-512.
_OPERATIONS_PER_S = 30e9
_BYTES_PER_WEIGHT = 2


class Room(NamedTuple):
    """What there is: memory of the machine, and its processors; on a GPU nobody knows before it is tried."""

    memory_bytes: int
    processors: int
    is_gpu: bool


def lacks_memory(backend: str, model: ModelSettings, source: Source, room: Room) -> str | None:
    """Why a backend would not find the memory; None when it does. Raises OSError."""
    if room.is_gpu:
        return None
    weights = _weights(source)
    kv = max(0, estimate(model, source) - weights)
    needed = _loaded_bytes(backend, source) + _PROCESS_BYTES + min(kv, int(room.memory_bytes * _KV_SHARE))
    if needed <= room.memory_bytes:
        return None
    return f"would need about {_gib(needed)} of memory, and {_gib(room.memory_bytes)} are available"


def seconds(backends: Sequence[str], source: Source, sequences: int, room: Room) -> float:
    """About how long it takes to measure all of these. Raises OSError."""
    total = 0.0
    for backend in backends:
        total += _START_S + _loaded_bytes(backend, source) / _BYTES_PER_S
        if not room.is_gpu:
            # Each weight is multiplied and added once for a token; a chunk at least twice, and a prompt each.
            tokens = 2 * PREFILL_TOKENS + sequences * (PROMPT_TOKENS + 2)
            weights = _widened(source) / _BYTES_PER_WEIGHT
            total += 2 * weights * tokens / (_OPERATIONS_PER_S * room.processors)
    return total


def _loaded_bytes(backend: str, source: Source) -> int:
    return _weights(source) if backend == "llama_cpp" else _widened(source)


def _widened(source: Source) -> int:
    return _weights(source) * (_WIDENED if source.kind is SourceKind.GGUF else 1)


def _weights(source: Source) -> int:
    return sum(file.stat().st_size for file in weight_files(source))


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
