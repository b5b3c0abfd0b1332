"""The content of files as a number."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from workers.runners.remembered import Remembered


def content_digest(files: Sequence[Path], remembered: Remembered) -> str:
    """SHA-256 over the whole content, in hex; read once as long as the files stay as they are."""
    stats = [(str(file.resolve()), file.stat()) for file in files]
    key = "sha256 " + ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)
    digest = remembered.get(key)
    if digest is None:
        digest = _digest(files)
        remembered.put(key, digest)
    return digest


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
