"""Ending what the current task waits for as soon as something else has happened."""

import asyncio
from types import TracebackType
from typing import Any, Self


class Interruption:
    """A block that ends early once one of `futures` is done, or `stop` is called; then it has `happened`.

    It works as `asyncio.timeout` does, by cancelling the task that is in the block, and needs no task of its own.
    """

    __slots__ = ("_futures", "_task", "happened")

    def __init__(self, *futures: asyncio.Future[Any]) -> None:
        self._futures = futures
        self._task: asyncio.Task[Any] | None = None
        self.happened = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        for future in self._futures:
            future.add_done_callback(self._on_done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        for future in self._futures:
            future.remove_done_callback(self._on_done)
        # Somebody else may have cancelled the task as well: that stays.
        return task is not None and self.happened and task.uncancel() == 0 and kind is asyncio.CancelledError

    def stop(self) -> None:
        """To be called from the loop, not from within the block. Does nothing once the block is over."""
        if self._task is not None and not self.happened:
            self.happened = True
            self._task.cancel()

    def _on_done(self, future: asyncio.Future[Any]) -> None:
        self.stop()
