"""`<data-dir>/calibration`: a file for each verdict. One that cannot be read is as good as none."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ops.calibration.key import Key
from ops.calibration.verdict import Verdict

log = logging.getLogger("inferflux.calibration")

FOLDER = "calibration"
_MAX_FILES = 200
_MAX_BYTES = 1 << 20


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    key: Key
    verdict: Verdict


class Results:
    """Fit for any thread and for several processes: a file is replaced whole."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    def exact(self, key: Key) -> Verdict | None:
        entry = _read(self._path(key))
        return entry.verdict if entry is not None and entry.key == key else None

    def similar(self, key: Key) -> Verdict | None:
        """The latest about the same model and machine, for whatever load."""
        for path in self._newest_first():
            entry = _read(path)
            if entry is not None and entry.key.is_similar(key) and entry.verdict.backend is not None:
                return entry.verdict
        return None

    def put(self, key: Key, verdict: Verdict) -> bool:
        """Whether it is remembered from now on; the log says why not."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(self._path(key), _Entry(key=key, verdict=verdict).model_dump_json(indent=1))
        except OSError as error:
            log.warning("%s: %s; it will be measured again at the next start", self._folder, error.strerror)
            return False
        for path in self._newest_first()[_MAX_FILES:]:
            with contextlib.suppress(OSError):
                path.unlink()
        return True

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key.digest()}.json"

    def _newest_first(self) -> list[Path]:
        found = []
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.json"):
                with contextlib.suppress(OSError):
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]


def _read(path: Path) -> _Entry | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        entry = _Entry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    is_ours = entry.version == 1 and entry.verdict.backend in (None, *entry.key.backends)
    return entry if is_ours else None


def _write(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "w") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
