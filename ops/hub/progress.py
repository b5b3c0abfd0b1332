"""How far a download is, in the log."""

import logging
import time

from ops.hub.download import mib

log = logging.getLogger("inferflux.hub")

_EVERY_S = 5.0
_WIDTH = 20


class LogProgress:
    """A line with a bar at the start, every few seconds, and at the end."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._due = 0.0
        self._started_at = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started_at = done, now
        if done < total and now < self._due:
            return
        self._due = now + _EVERY_S
        share = done / total if total else 1.0
        bar = ("#" * int(share * _WIDTH)).ljust(_WIDTH, "·")
        log.info("%s [%s] %3.0f %% of %s%s", self._source, bar, share * 100, mib(total), self._pace(done, now))

    def _pace(self, done: int, now: float) -> str:
        elapsed = now - self._started_at
        assert self._first is not None
        return f", {mib(int((done - self._first) / elapsed))}/s" if elapsed > 1 and done > self._first else ""
