"""A file that grows by whole lines. Whoever rotates it renames it; the next line goes into a new one."""

import errno
import os
import stat
from pathlib import Path

_TAIL_BYTES = 1 << 20
# Of what is no file on a disk, and needs none.
_NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP)


class AuditLog:
    """Mode 0600 when it is made here. Each append is one write at the end of the file. Blocks; from one thread only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._is_torn = False

    def append(self, lines: list[bytes], *, to_disk: bool) -> None:
        """Add lines; with `to_disk` they are on the disk when it returns. Raises OSError, and may have added a part of
        them, which the next append keeps apart.
        """
        descriptor = self._open()
        data = b"".join(line + b"\n" for line in lines)
        if self._is_torn:
            data = b"\n" + data
        written = os.write(descriptor, data)
        self._is_torn = written < len(data) and not data[:written].endswith(b"\n")
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if to_disk:
            self._sync(descriptor)

    def check(self) -> None:
        """Raises OSError when it cannot be written to."""
        self._open()
        self.close()

    def tail(self) -> list[bytes]:
        """The last whole lines, the last one first; none where there is no file. Raises OSError."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return []
            file.seek(max(0, os.fstat(descriptor).st_size - _TAIL_BYTES))
            return file.read().split(b"\n")[-2::-1]

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        """Of the file that has the name now."""
        if self._descriptor is not None and self._is_current(self._descriptor):
            return self._descriptor
        self.close()
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._descriptor = descriptor
        facts = os.fstat(descriptor)
        self._is_torn = stat.S_ISREG(facts.st_mode) and _is_torn(descriptor, facts.st_size)
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NOT_SYNCED:
                raise


def _is_torn(descriptor: int, size: int) -> bool:
    """Whether the last line has no end: whoever wrote it was stopped."""
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
