"""Headers of GGUF files, entry by entry, for tests that need no weights."""

import struct
from pathlib import Path


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def text_entry(key: str, text: str) -> bytes:
    return entry(key, 8, string(text))


def written(folder: Path, *entries: bytes) -> Path:
    """A file with these entries and no tensors."""
    path = folder / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(entries)) + b"".join(entries))
    return path
