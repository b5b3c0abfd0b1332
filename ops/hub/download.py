"""One file of a hub: appended to what there is of it, checked, thrown away when it is wrong."""

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ops.hub.api import HubApi
from ops.hub.errors import HubError, HubUnreachable, WrongBytes
from ops.hub.listing import HubFile
from ops.hub.reference import HubReference

log = logging.getLogger("inferflux.hub")

# So many attempts in a row that bring nothing are enough.
_FRUITLESS = 5
_LONGEST_WAIT_S = 20.0


class RemoteFile(NamedTuple):
    api: HubApi
    reference: HubReference
    commit: str
    file: HubFile


def download(remote: RemoteFile, partial: Path, advance: Callable[[int], None], *, retry_wait_s: float = 1.0) -> None:
    """Fill `partial`, which may hold a beginning, until it is the whole file, checked, and on the disk.

    `advance` is told how many bytes are there; what it raises ends the download, which goes on from there another time.
    A connection that ends early is made again. Raises HubError; WrongBytes after a second try from the first byte.
    """
    partial.touch()
    for is_last in (False, True):
        _fill(remote, partial, advance, retry_wait_s)
        if is_intact(partial, remote.file):
            _sync(partial)
            return
        partial.unlink()
        advance(0)
        if not is_last:
            log.warning("%s: %s is not what it should be; downloading it again", remote.reference, remote.file.path)
    raise WrongBytes(
        f"{remote.reference}: {remote.file.path} came twice with other bytes than {remote.api.endpoint} says it has"
    )


def is_intact(path: Path, file: HubFile) -> bool:
    """Whether a file on the disk holds what the hub says. Reads all of it. Raises OSError."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        if file.sha256 is not None:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
        # Git's name of a blob; small files have no other.
        whole = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        while chunk := content.read(2**20):
            whole.update(chunk)
        return whole.hexdigest() == file.blob


def _fill(remote: RemoteFile, partial: Path, advance: Callable[[int], None], retry_wait_s: float) -> None:
    fruitless = 0
    while True:
        before = size_of(partial)
        try:
            _append(remote, partial, advance)
            if size_of(partial) >= remote.file.size:
                return
            raise HubUnreachable(f"{remote.reference}: {remote.api.endpoint} ended {remote.file.path} early")
        except HubUnreachable as error:
            fruitless = 0 if size_of(partial) > before else fruitless + 1
            if fruitless >= _FRUITLESS:
                raise
            log.warning("%s; going on at byte %d", error, size_of(partial))
            time.sleep(min(retry_wait_s * 2**fruitless, _LONGEST_WAIT_S))


def _append(remote: RemoteFile, partial: Path, advance: Callable[[int], None]) -> None:
    start = size_of(partial)
    if start >= remote.file.size:
        return
    with remote.api.content(remote.reference, remote.commit, remote.file.path, start) as answer:
        goes_on = answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {start}-")
        try:
            with partial.open("ab" if goes_on else "wb", buffering=0) as out:
                if answer.status_code == 416:
                    return  # it is shorter there than here: from the first byte
                _write(out, answer.iter_bytes(), start if goes_on else 0, remote.file.size, advance)
        except OSError as error:
            raise _disk_trouble(remote, partial, error) from None


def _write(out: BinaryIO, chunks: Iterator[bytes], done: int, size: int, advance: Callable[[int], None]) -> None:
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[out.write(view) :]
        done += len(chunk)
        advance(done)
        if done > size:
            return  # more than there is: whatever it is, it is not the file


def require_space(reference: HubReference, folder: Path, needed: int) -> None:
    """Raises HubError when the disk cannot take so many bytes more."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise HubError(
            f"{reference}: the disk is too full: {mib(needed)} are to come, {mib(free)} are free in {folder}"
        )


def mib(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync(path: Path) -> None:
    with path.open("rb") as content:
        os.fsync(content.fileno())


def _disk_trouble(remote: RemoteFile, partial: Path, error: OSError) -> HubError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(f"{remote.reference}: the disk is full after {mib(size_of(partial))} of {remote.file.path}")
    return HubError(f"{remote.reference}: {partial}: {error.strerror}")
