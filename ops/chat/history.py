"""What was typed in chats, kept for the next one in a file that only its user can read."""

import contextlib
import os
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory

NAME = "chat_history"
MAX_BYTES = 1 << 20


def open_history(folder: Path) -> tuple[History, str | None]:
    """The history in a folder; or one of this session alone, and why."""
    path = folder / NAME
    if not path.is_absolute():
        return InMemoryHistory(), "there is no home directory; set XDG_CONFIG_HOME"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            os.fchmod(file.fileno(), 0o600)
    except OSError as error:
        return InMemoryHistory(), f"{path}: {error.strerror}"
    _shorten(path)
    return _SteadyHistory(str(path)), None


class _SteadyHistory(FileHistory):
    """Goes on when the file cannot be written any more: a full disk ends no conversation."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _shorten(path: Path) -> None:
    """Keep the later half of a file that has grown too long, from the beginning of an entry on."""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MAX_BYTES:
            return
        _, _, rest = path.read_bytes()[-MAX_BYTES // 2 :].partition(b"\n# ")
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n# " + rest)
        temporary.replace(path)
