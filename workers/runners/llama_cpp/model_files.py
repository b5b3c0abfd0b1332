"""The files that a model is made of."""

import re
from pathlib import Path

# The naming that the library itself follows for models in several parts.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def model_files(path: Path) -> list[Path]:
    """The file itself, or all parts of a model that is split over several."""
    match = _SHARD.search(path.name)
    if not match:
        return [path]
    stem = path.name[: match.start()]
    return [path.with_name(f"{stem}-{part:05d}-of-{match[2]}.gguf") for part in range(1, int(match[2]) + 1)]


def total_bytes(path: Path) -> int:
    """Size of all files that are there."""
    return sum(file.stat().st_size for file in model_files(path) if file.exists())


def identity(path: Path) -> str:
    """Changes when a file was replaced or written to, without reading it."""
    stats = [(str(file.resolve()), file.stat()) for file in model_files(path)]
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)
