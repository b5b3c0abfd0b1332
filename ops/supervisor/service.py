"""Keeps one child running: start, readiness, restart with back-off, drain."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.errors import CannotStart
from ops.supervisor.child import Child
from ops.supervisor.output import Output

log = logging.getLogger("inferflux.up")

POLL_READY_S = 0.01
FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
STEADY_AFTER_S = 30.0

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a child, `at` Unix time. It writes `ready_file` once it serves; `id` differs from start to start."""

    id: str
    command: list[str]
    ready_file: Path
    at: float = field(default_factory=time.time)


class Service:
    """One child, started again whenever it ends, until `stop`.

    `on_ready(service)` and `on_exit(service, exit code)` run on the event loop. The first start is special: when that
    child ends before it is ready, `first_ready` raises with its reason and nothing is restarted.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], Launch],
        output: Output,
        *,
        on_ready: Callable[["Service"], None],
        on_exit: Callable[["Service", int], None],
    ) -> None:
        self.name = name
        self.launch: Launch | None = None
        self._make_launch = launch
        self._output = output
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._facts: Facts | None = None
        self._child: Child | None = None
        self._is_stopping = False
        self._is_hang_up_due = False
        self._task: asyncio.Task[None] | None = None
        self._first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.is_running else None

    @property
    def facts(self) -> Facts | None:
        """What the running child said when it was ready; None before, and from its end on."""
        return self._facts if self.pid is not None else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_running(), name=f"service {self.name}")

    async def first_ready(self) -> None:
        """Wait until it serves for the first time. Raises CannotStart with the child's own reason."""
        await asyncio.shield(self._first_ready)

    def hang_up(self) -> None:
        """Have it read its configuration again, now or once it serves."""
        if self.facts is not None and self._child is not None:
            self._child.hang_up()
        else:
            self._is_hang_up_due = True

    async def stop(self, deadline_s: float) -> None:
        """Drain it, and kill it when it has not ended after `deadline_s`."""
        self._is_stopping = True
        child, task = self._child, self._task
        if task is None:
            return
        if child is None or not child.is_running:
            task.cancel()
        else:
            child.terminate()
        done, _ = await asyncio.wait({task}, timeout=deadline_s)
        if not done:
            log.warning("%s did not drain within %.0f s and is killed", self.name, deadline_s)
            await self.kill()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def finish(self) -> None:
        """Let it end what it has taken, and wait for that, however long it takes. Not started again."""
        self._is_stopping = True
        if self._task is None:
            return
        if self._child is not None and self._child.is_running:
            self._child.finish()
        else:
            self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more, and will not again."""
        return self._task is not None and self._task.done()

    async def kill(self) -> None:
        """SIGKILL, at once, and wait for its end. Does nothing when it does not run."""
        self._is_stopping = True
        if self._task is not None and not self._task.done():
            if self._child is not None and self._child.is_running:
                self._child.kill()
            else:
                self._task.cancel()
            await asyncio.wait({self._task})

    async def _keep_running(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            started_at = time.monotonic()
            reason = await self._run_once()
            if self._is_stopping:
                break
            if not self._first_ready.done():
                self._first_ready.set_exception(CannotStart(f"{self.name}: {reason}"))
                return
            if time.monotonic() - started_at > STEADY_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning("%s ended (%s) and is started again in %.1f s", self.name, reason, backoff_s)
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
        if not self._first_ready.done():
            self._first_ready.cancel()

    async def _run_once(self) -> str:
        """Start the child and wait for its end; returns its last words."""
        self.launch = launch = self._make_launch()
        launch.ready_file.unlink(missing_ok=True)
        try:
            self._child = child = await Child.start(self.name, launch.command, self._output)
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        watching = asyncio.create_task(self._watch_readiness(child, launch))
        try:
            code = await child.wait()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            launch.ready_file.unlink(missing_ok=True)
            self._facts = None
        self._on_exit(self, code)
        return child.last_words()

    async def _watch_readiness(self, child: Child, launch: Launch) -> None:
        while child.is_running:
            self._facts = _read_facts(launch.ready_file)
            if self.facts is not None:
                if self._is_hang_up_due:
                    self._is_hang_up_due = False
                    child.hang_up()
                self._on_ready(self)
                if not self._first_ready.done():
                    self._first_ready.set_result(None)
                return
            await asyncio.sleep(POLL_READY_S)


def _read_facts(path: Path) -> Facts | None:
    """What the child wrote; None while there is nothing, or not all of it."""
    try:
        facts: Facts = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return facts
