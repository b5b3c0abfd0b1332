"""Tasks that outlive their request. They are held, failures are logged, and closing waits for them."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.stdlib.get_logger("inferflux.edge.background")


class Background:
    """Bounded by the calls that its work is for: a few tasks for each part of one."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background task failed", task=task.get_name(), error=repr(error), exc_info=error)

    async def close(self, timeout_s: float) -> None:
        """Wait for what runs, at most `timeout_s`; then cancel it."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
