"""Packed weights in the user's cache folder: laid out once, then mapped by every process that serves the model."""

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from workers.runners.remembered import default_cache_file
from workers.runners.torch.native.weight_file import Array, SpoiltFile, Weights, map_weights, write_weights

logger = logging.getLogger(__name__)

_SUFFIX = ".weights"
_MAX_BYTES = 16 * 2**30
# What a process that was killed has left half written.
_ABANDONED_S = 3600.0

Pack = Callable[[], Iterable[tuple[str, Array]]]


class WeightCache:
    """A folder that anybody may empty at any time: what is mapped stays mapped. Of files that are more than `max_bytes`
    together, those that were not used for longest go."""

    def __init__(self, folder: Path | None = None, max_bytes: int = _MAX_BYTES) -> None:
        self._folder = folder or default_cache_file().parent / "weights"
        self._max_bytes = max_bytes

    def get_or_pack(self, parts: Iterable[str], pack: Pack) -> Weights:
        """What `pack` gives, which `parts` identify. Where nothing can be kept it is in this process's memory."""
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        path = self._folder / f"{key[:32]}{_SUFFIX}"
        kept = self._get(path, key)
        if kept is not None:
            return kept
        try:
            self._put(path, key, pack())
            return map_weights(path, key)
        except (OSError, SpoiltFile) as error:
            logger.warning("packed weights are not kept in %s: %s", self._folder, error)
            return dict(pack())

    def _get(self, path: Path, key: str) -> Weights | None:
        started = time.monotonic()
        try:
            weights = map_weights(path, key)
        except FileNotFoundError:
            return None
        except (OSError, SpoiltFile) as error:
            logger.warning("packed weights in %s are made anew: %s", path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        logger.info("packed weights found in %s, checked in %.2f s", path, time.monotonic() - started)
        return weights

    def _put(self, path: Path, key: str, weights: Iterable[tuple[str, Array]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room()
        # Under a name of its own first: another process may do the same.
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            written = Path(folder) / path.name
            write_weights(written, key, weights)
            if written.stat().st_size > self._max_bytes:
                raise OSError(f"they are more than {self._max_bytes} bytes")
            os.replace(written, path)
        self._make_room()

    def _make_room(self) -> None:
        files = []
        now = time.time()
        for file in self._folder.glob(f"**/*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                stat = file.stat()
                if file.parent == self._folder:
                    files.append((stat.st_mtime, stat.st_size, file))
                elif now - stat.st_mtime > _ABANDONED_S:
                    file.unlink()
                    file.parent.rmdir()
        total = 0
        for _, size, file in sorted(files, reverse=True):
            total += size
            if total > self._max_bytes:
                with contextlib.suppress(OSError):
                    file.unlink()
