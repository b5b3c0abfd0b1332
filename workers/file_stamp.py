"""Whether a model's file is still the one that did not load."""

from pathlib import Path


def file_stamp(source: str) -> object:
    """Something that differs once the file or folder at `source` was exchanged; None where there is none."""
    try:
        status = Path(source).expanduser().stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
