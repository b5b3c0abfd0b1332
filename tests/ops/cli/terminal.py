"""A program in a terminal of its own: types keys, reads the screen as text."""

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

UP = "\x1b[A"
CTRL_C = "\x03"
CTRL_D = "\x04"
_PROMPT = b"\x1b[?2004h"
_ESCAPES = re.compile(r"\x1b\[[0-9;?>]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07")


def pasted(text: str) -> str:
    """As terminals mark what was pasted."""
    return f"\x1b[200~{text}\x1b[201~"


class Terminal:
    """`shown` is all text up to now, without escape sequences. What was waited for once is not found again."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._raw = b""
        self._seen = 0
        self._prompts = 0

    @property
    def shown(self) -> str:
        return _ESCAPES.sub("", self._raw.decode(errors="replace"))

    def until(self, pattern: str) -> str:
        """Read until the pattern stands behind what was found last; the test's timeout ends it."""
        while (match := re.compile(pattern).search(self.shown, self._seen)) is None:
            self._raw += self._read()
        self._seen = match.end()
        return match.group()

    def prompt(self) -> None:
        """Read until the next prompt of a chat, which says that it takes pasted text."""
        while self._raw.count(_PROMPT) <= self._prompts:
            self._raw += self._read()
        self._prompts += 1

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while chunk := self._read(at_end=b""):
            self._raw += chunk
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def kill(self) -> None:
        """If it still runs."""
        try:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def _read(self, at_end: bytes | None = None) -> bytes:
        try:
            chunk = os.read(self._descriptor, 65536)
        except OSError:  # the other side is closed
            chunk = b""
        if not chunk and at_end is None:
            raise AssertionError(f"it ended; on its screen:\n{self.shown}")
        return chunk


@contextmanager
def inferctl_in_terminal(environ: dict[str, str], *arguments: str) -> Iterator[Terminal]:
    """A terminal of 120 columns that does not answer questions about itself."""
    environ = {**environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "120", "LINES": "40"}
    pid, descriptor = pty.fork()
    if pid == 0:
        # Ignored in what a shell runs in the background, the suite for instance, and inherited from there.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execve(sys.executable, [sys.executable, "-m", "ops.cli.inferctl", *arguments], environ)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    terminal = Terminal(pid, descriptor)
    try:
        yield terminal
    finally:
        terminal.kill()
        os.close(descriptor)
