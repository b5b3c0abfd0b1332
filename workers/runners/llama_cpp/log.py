"""llama.cpp's log lines, as lines of ours.

The library has one log callback per process and one line may come in several calls. Its own INFO is a page per model
load, hence our DEBUG.
"""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("inferflux.llama")

# enum ggml_log_level; 5 continues the line before.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUES = 5
# "llama_model_load: error loading model: " says nothing that our own text does not.
_PREFIX = re.compile(r"^(?:[\w:~]+: )?(?:error loading model: )?")


class _ThreadState(threading.local):
    pending = ""
    level = logging.DEBUG
    is_quiet = False
    errors: list[str] | None = None


class LogRouter:
    """The log callback. Lines belong to the call on the same thread, which can `collect` the errors among them."""

    def __init__(self) -> None:
        self._state = _ThreadState()

    def __call__(self, level: int, text: bytes | None, _user_data: object = None) -> None:
        state = self._state
        if level != _CONTINUES:
            state.level = _LEVELS.get(level, logging.DEBUG)
        state.pending += (text or b"").decode(errors="replace")
        *lines, state.pending = state.pending.split("\n")
        for line in lines:
            self._emit(line.rstrip())

    @contextmanager
    def collect(self, *, is_quiet: bool = False) -> Iterator[list[str]]:
        """The error lines of the calls inside, most specific first; the caller reports them, and they are not logged.

        Quiet: warnings are not logged either, where the outcome says the same.
        """
        state = self._state
        errors: list[str] = []
        state.errors, state.is_quiet = errors, is_quiet
        try:
            yield errors
        finally:
            state.errors, state.is_quiet = None, False

    def _emit(self, line: str) -> None:
        state = self._state
        if not line:
            return
        level = state.level
        if state.errors is not None and level == logging.ERROR:
            state.errors.append(_PREFIX.sub("", line))
            level = logging.DEBUG
        logger.log(logging.DEBUG if state.is_quiet else level, "%s", line)
