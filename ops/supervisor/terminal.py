"""Whether the terminal that a process was started on is still there."""

import os


class Terminal:
    """Made at the start. A SIGHUP comes from a terminal that is closed, or from somebody who asks for something."""

    def __init__(self) -> None:
        self._had_one = _can_be_opened()

    def is_gone(self) -> bool:
        """False when there was none."""
        return self._had_one and not _can_be_opened()


def _can_be_opened() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
