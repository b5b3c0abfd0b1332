"""The lock on a data directory: one `up` at a time."""

import fcntl
import os
from pathlib import Path

from ops.errors import CannotStart

NAME = "up.lock"


class DataDirLock:
    """Held from `acquire` until `release` or the end of the process, whatever ends it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and create the directory. Raises CannotStart: held by another `up`, or not writable."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CannotStart(f"data directory {self._path.parent}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise CannotStart(
                f"{self._path.parent} is in use by another `inferflux up` (pid {holder or 'unknown'}); "
                "stop it or choose another --data-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
