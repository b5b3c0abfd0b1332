"""How much fits into the data directory, and how long a write takes to be safe there."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ops.doctor.check import Check

MIN_FREE_BYTES = 256 << 20
# The broker stores each checkpoint and each end of a request.
SLOW_S = 0.05
_WRITES = 8
_BLOCK = 4096


def check_disk(folder: Path, clock: Callable[[], float] = time.perf_counter) -> list[Check]:
    existing = nearest_existing(folder)
    checks = [_free(folder, existing)]
    # Without a data directory yet, nothing is written anywhere else.
    return [*checks, _speed(folder, clock)] if folder.is_dir() and os.access(folder, os.W_OK) else checks


def nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _free(folder: Path, existing: Path) -> Check:
    free = shutil.disk_usage(existing).free
    detail = f"{free / 2**30:.1f} GiB free"
    return Check("disk", free >= MIN_FREE_BYTES, detail, "" if free >= MIN_FREE_BYTES else f"free space on {folder}")


def _speed(folder: Path, clock: Callable[[], float]) -> Check:
    try:
        latency_s = _write_latency(folder, clock)
    except OSError as error:
        return Check("disk speed", False, f"{folder}: {error.strerror}", "inferflux up --data-dir DIR")
    detail = f"{latency_s * 1000:.1f} ms until a write is safe"
    if latency_s <= SLOW_S:
        return Check("disk speed", True, detail)
    fix = "inferflux up --data-dir DIR, on a local SSD"
    return Check("disk speed", False, f"{detail}: checkpoints will wait for it", fix, is_needed=False)


def _write_latency(folder: Path, clock: Callable[[], float]) -> float:
    """Median seconds of a small write with fsync. Raises OSError."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_WRITES):
            started = clock()
            file.write(b"\0" * _BLOCK)
            file.flush()
            os.fsync(file.fileno())
            taken.append(clock() - started)
    return statistics.median(taken)
