"""Batches as a client sees them: a file brought, a batch made of it, and waited for."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from ops.client.client import Client
from ops.errors import Failure

_FIRST_PAUSE_S = 0.1
_PAUSE_S = 1.0
# A server that is started again is waited for.
_MAX_MISSED = 20
ENDED = ("completed", "failed", "expired", "cancelled")
DEFAULT_ENDPOINT = "/v1/chat/completions"
Batch = dict[str, Any]


class CountingFile:
    """A file that tells how far it has been read."""

    def __init__(self, file: IO[bytes], on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._on_read(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(1 << 16):
            yield data


def batch_path(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


def endpoint_of(path: Path) -> str:
    """The `url` of the first line; chat where that says nothing."""
    with path.open("rb") as file:
        try:
            url = json.loads(file.readline()).get("url")
        except (ValueError, AttributeError):
            return DEFAULT_ENDPOINT
    return url if isinstance(url, str) else DEFAULT_ENDPOINT


def submit(
    client: Client, path: Path, endpoint: str, metadata: Mapping[str, str], on_read: Callable[[int], None]
) -> Batch:
    """Bring the file and make a batch of it. Raises Failure, OSError."""
    with path.open("rb") as file:
        uploaded = client.send_file("/v1/files", {"purpose": "batch"}, path.name, CountingFile(file, on_read))
    asked = {"input_file_id": uploaded["id"], "endpoint": endpoint, "completion_window": "24h"}
    batch: Batch = client.post("/v1/batches", {**asked, "metadata": dict(metadata)} if metadata else asked)
    return batch


def watch(client: Client, batch: Batch) -> Iterator[Batch]:
    """The batch as it is, again and again until it has ended. Raises Failure when the server stays away."""
    missed, pause = 0, _FIRST_PAUSE_S
    while True:
        yield batch
        if batch["status"] in ENDED:
            return
        time.sleep(pause)
        pause = min(1.5 * pause, _PAUSE_S)
        try:
            batch = client.get(batch_path(batch["id"]))
            missed = 0
        except Failure:
            missed += 1
            if missed > _MAX_MISSED:
                raise


def has_succeeded(batch: Batch) -> bool:
    """Whether it has ended, with an answer to each line."""
    return bool(batch["status"] == "completed" and batch["request_counts"]["failed"] == 0)
