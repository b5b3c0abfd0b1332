"""That something takes its time: a line on stderr, when that is a terminal, and nothing anywhere else."""

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status

_QUEUED = re.compile(r"queued position=(\d+) eta_s=(\d+)")
_PREFILL = re.compile(r"prefill (\d+)%")


class Progress:
    """Shown from `start` to `stop`, which both may be called again. Also a context."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._status: Status | None = None

    def __enter__(self) -> "Progress":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        if self._status is not None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.markup import escape

        console = Console(stderr=True)
        if not console.is_dumb_terminal:
            self._status = console.status(escape(self._text))
            self._status.start()

    def say(self, text: str) -> None:
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(text))

    def comment(self, text: str) -> None:
        """What the server tells of a request on its way."""
        if match := _QUEUED.fullmatch(text):
            self.say(f"queued, place {match[1]}, about {match[2]} s")
        elif match := _PREFILL.fullmatch(text):
            self.say(f"reading the prompt, {match[1]}%")

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
