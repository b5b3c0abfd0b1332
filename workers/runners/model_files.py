"""The files that a model is made of."""

import re
from pathlib import Path

from workers.runners.base import RunnerError

_MAGIC = b"GGUF"

# The naming that the library itself follows for models in several parts.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def check_model_file(source: str) -> Path:
    """The file to load. Raises RunnerError for what the library would refuse less clearly."""
    path = Path(source).expanduser()
    for file in model_files(path):
        try:
            with file.open("rb") as stream:
                magic = stream.read(len(_MAGIC))
        except IsADirectoryError as error:
            raise RunnerError(f"{file} is a folder; the llama_cpp backend loads a GGUF file") from error
        except OSError as error:
            raise RunnerError(f"cannot read {file}: {error.strerror or error}") from error
        if magic != _MAGIC:
            raise RunnerError(f"{file} is not a GGUF file")
    return path


def model_files(path: Path) -> list[Path]:
    """The file itself, or all parts of a model that is split over several."""
    match = _SHARD.search(path.name)
    if not match:
        return [path]
    stem = path.name[: match.start()]
    return [path.with_name(f"{stem}-{part:05d}-of-{match[2]}.gguf") for part in range(1, int(match[2]) + 1)]


def total_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in model_files(path))


def identity(path: Path) -> str:
    """Changes when a file was replaced or written to, without reading it."""
    stats = [(str(file.resolve()), file.stat()) for file in model_files(path)]
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)
