"""From a path to a checkpoint."""

from pathlib import Path

from workers.checkpoints.checkpoint import Checkpoint
from workers.checkpoints.folder_source import open_folder
from workers.checkpoints.gguf_source import open_gguf
from workers.runners.remembered import Remembered, default_cache_file


def open_checkpoint(path: Path, remembered: Remembered | None = None) -> Checkpoint:
    """Open a GGUF file (the first, of a model in parts) or a folder with safetensors.

    Every tensor is checked to be there; none is read yet. `remembered` keeps the hashes of large files, in the user's
    cache folder by default. Raises RunnerError, one line with file and reason.
    """
    path = Path(path).expanduser()
    open_source = open_folder if path.is_dir() else open_gguf
    return Checkpoint(path, open_source(path, remembered or Remembered(default_cache_file())))
