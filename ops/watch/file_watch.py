"""Tells when a file has changed and the change is over: by the system's events, and by looking now and then."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("inferflux.watch")

SETTLE_S = 0.3
# The library looks that often whether events have come, in every process.
_LOOK_MS = 200
_RETRY_S = 5.0


class Mark(NamedTuple):
    """What tells one state of a file from another."""

    inode: int
    modified_ns: int
    size: int


NOTHING_SEEN = Mark(-1, -1, -1)


class FileWatch:
    """One file. It may be missing, replaced whole, or a link that is pointed elsewhere.

    `poll_s` is for file systems that tell nothing, such as network ones. A change counts as over when the file looks
    the same for `settle_s`. `seen` is the state that is known; with NOTHING_SEEN what stands there is a change too.
    """

    def __init__(self, path: Path, poll_s: float, seen: Mark | None, *, settle_s: float = SETTLE_S) -> None:
        self._path = path
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._wake = asyncio.Event()
        self._seen = seen

    async def run(self, on_change: Callable[[], None]) -> None:
        """Call back after every change. Until cancelled."""
        events = asyncio.create_task(self._follow_events(), name=f"events of {self._path.name}")
        try:
            while True:
                if (mark := mark_of(self._path)) != self._seen:
                    self._seen = await self._settled(mark)
                    on_change()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            events.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await events

    async def _settled(self, mark: Mark | None) -> Mark | None:
        while True:
            await asyncio.sleep(self._settle_s)
            if (now := mark_of(self._path)) == mark:
                return now
            mark = now

    async def _follow_events(self) -> None:
        """Editors and mounted volumes replace files, hence the folder is watched. Other files in it may change all the
        time, so a thread looks, which costs the loop one short call for what it sees.
        """
        stop = threading.Event()
        try:
            while True:
                try:
                    await asyncio.to_thread(self._watch_folder, asyncio.get_running_loop(), stop)
                except (OSError, RuntimeError) as error:  # no such folder, or no more watches to be had
                    log.debug("no events of %s: %s", self._path.parent, error)
                await asyncio.sleep(_RETRY_S)
        finally:
            stop.set()

    def _watch_folder(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """Until told to stop. Raises OSError, RuntimeError."""
        from watchfiles import watch

        looks = watch(
            self._path.parent,
            watch_filter=None,
            recursive=False,
            step=_LOOK_MS,
            debounce=2 * _LOOK_MS,
            stop_event=stop,
            raise_interrupt=False,
        )
        for _ in looks:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and `stop` will be set
                loop.call_soon_threadsafe(self._wake.set)


def mark_of(path: Path) -> Mark | None:
    """None when there is no such file, or it cannot be looked at."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return Mark(stat.st_ino, stat.st_mtime_ns, stat.st_size)
