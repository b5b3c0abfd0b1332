"""What an edge knows of one request, as its journal is read."""

import asyncio
import time
from collections.abc import Callable

from schemas.events import Accepted, Delta, Event, Progress
from schemas.fold import Fold


class JournalView:
    """One open request: its fold so far, and waiting for more. Close it when nobody waits any more."""

    def __init__(self, request_id: str, forget: Callable[["JournalView"], None]) -> None:
        self.request_id = request_id
        self._forget = forget
        self._waiters: list[asyncio.Future[None]] = []
        self._news = 0
        self._told = 0
        self._on_end: Callable[[], None] | None = None
        self.fold = Fold()
        self.progress: Progress | None = None
        self.last_activity = time.monotonic()

    async def changed(self, length: int, timeout_s: float | None) -> bool:
        """Wait until there are more than `length` tokens, or an end, or news (a claim, a hand-back, progress).

        News counts if it came after the last call returned. False on timeout. Several may wait.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        told = self._told
        while True:
            if self._news != told or self.fold.length > length or self.fold.terminal is not None:
                self._told = self._news
                return True
            waiter = loop.create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except TimeoutError:
                return False
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back once there is an end, before those who wait for it go on. Must be quick."""
        self._on_end = callback
        self._tell_end()

    def close(self) -> None:
        """Forget the request; later records are ignored."""
        self._forget(self)

    def take(self, event: Event, seq: int) -> None:
        """Fold one record and wake who waits. Called by the hub."""
        self.last_activity = time.monotonic()
        if isinstance(event, Progress):
            if event.run != self.fold.run:
                return
            self.progress = event
            self._news += 1
        elif not self.fold.feed(event, seq):
            if isinstance(event, (Delta, Accepted)):
                return  # nothing that somebody waits for
            self._news += 1
        self._tell_end()
        # Once per batch: those who wait run only after all that has arrived is folded.
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _tell_end(self) -> None:
        if self._on_end is not None and self.fold.terminal is not None:
            callback, self._on_end = self._on_end, None
            callback()
