"""Answers that cost seconds and hold until something changes, kept in the user's cache folder."""

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

_MAX_ENTRIES = 256


def default_cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "inferflux" / "trial.json"


class Remembered:
    """Texts by key in one JSON file. A file that cannot be read or written is as good as an empty one.

    Keys say everything that an answer depends on. Of two processes that write at once, one's entry is found out again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> str | None:
        return self._read().get(key)

    def put(self, key: str, value: str) -> None:
        entries = self._read()
        entries.pop(key, None)
        entries[key] = value
        recent = dict(list(entries.items())[-_MAX_ENTRIES:])
        try:
            self._write(json.dumps(recent, indent=1))
        except OSError as error:
            logger.debug("cannot remember %s in %s: %s", key, self._path, error)

    def _read(self) -> dict[str, str]:
        try:
            entries = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(entries, dict):
            return {}
        return {key: value for key, value in entries.items() if isinstance(value, str)}

    def _write(self, text: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with open(descriptor, "w") as file:
                file.write(text)
            os.replace(name, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
