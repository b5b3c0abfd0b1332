"""One calibration at a time on a machine, whoever runs it: two at once would measure each other."""

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from ops.calibration.candidate import Stopped

_LOOK_EVERY_S = 0.2


class Busy(Exception):
    """Somebody else held the lock all the time."""


def lock_file() -> Path:
    return Path(tempfile.gettempdir()) / "inferflux-calibration.lock"


@contextlib.contextmanager
def machine_lock(path: Path, wait_s: float, stop: threading.Event) -> Iterator[None]:
    """Held inside, until the end of the process at the latest. Raises Busy, Stopped once `stop` is set, OSError."""
    descriptor = _open(path)
    try:
        for _ in range(max(1, round(wait_s / _LOOK_EVERY_S))):
            if _try(descriptor):
                break
            if stop.wait(_LOOK_EVERY_S):
                raise Stopped
        else:
            raise Busy
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """For reading is enough to lock it, so that users share a file that is only one's."""
    with contextlib.suppress(FileExistsError):
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
