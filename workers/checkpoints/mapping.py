"""Files as memory."""

import mmap
from pathlib import Path

from workers.runners.base import RunnerError


def map_file(path: Path) -> mmap.mmap:
    """For reading. Unmapped when the last array made from it is gone. Raises RunnerError."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise RunnerError(f"{path}: the file is empty") from None
    except OSError as error:
        raise RunnerError(f"cannot read {path}: {error.strerror or error}") from error
