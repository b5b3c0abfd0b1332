"""Made once for each state of the model's file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ops.bench.errors import ArmUnavailable
from workers.runners.base import RunnerError


def kept(folder: Path, model: Path, name: str, make: Callable[[Path], None]) -> Path:
    """What `make` writes to the path that it is given, a file or a folder of that name. Raises ArmUnavailable when it
    cannot."""
    stat = model.stat()
    # The name is shown in the tables, so that what it is made of is told by the folder.
    path = folder / f"{stat.st_size:x}-{stat.st_mtime_ns:x}" / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="unfinished-") as unfinished:
            written = Path(unfinished) / name
            make(written)
            if path.exists():  # another run was quicker
                return path
            os.replace(written, path)
    except (OSError, ImportError, RunnerError, ValueError, IndexError) as error:
        raise ArmUnavailable(f"{model.name} cannot be converted to {name}: {error}") from None
    return path
