"""The file with a copy of the policy document: the sealed bytes of its newest version, for their owner alone."""

import os
import secrets
from pathlib import Path

from producer.policy.envelope import read_header
from producer.policy.errors import Damaged

MODE = 0o600


class PolicyCopy:
    """`policy.store`. Several processes may keep the same file: none replaces a newer version. Blocking."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        """The sealed document, None without a file. Raises OSError."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def version(self) -> int | None:
        """Of the document in the file; None without one, or when it is damaged. Raises OSError."""
        envelope = self.read()
        try:
            return None if envelope is None else read_header(envelope).version
        except Damaged:
            return None

    def write(self, envelope: bytes, version: int) -> bool:
        """Replace the file whole, unless it holds this version or a newer one (False). Raises OSError."""
        there = self.version()
        if there is not None and there >= version:
            return False
        write_private(self.path, envelope)
        return True


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all, and on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
