"""Single keys from a terminal, while something else is shown on it."""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator


class Keys:
    """Reads stdin, key by key, and nothing when that is no terminal."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def wait(self, wanted: str, seconds: float) -> bool:
        """Whether one of `wanted` was pressed within so many seconds; waits them out otherwise."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self._is_terminal:
                time.sleep(left)
                return False
            if select.select([sys.stdin], [], [], left)[0]:
                key = os.read(sys.stdin.fileno(), 1).decode(errors="replace")
                if not key or key in wanted:
                    return True
        return False


@contextlib.contextmanager
def single_keys() -> Iterator[Keys]:
    """Keys are neither echoed nor held back for a line; Ctrl-C still interrupts."""
    if not sys.stdin.isatty():
        yield Keys(False)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(True)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
