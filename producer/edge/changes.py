"""Waiting for news of a call, whether it has one part or many."""

import asyncio

from producer.edge.calls import Call, Part


class Changes:
    """One reader's wait. With one part it waits on the journal itself; with many, a task for each part wakes it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    async def wait(self, length: int, timeout_s: float) -> None:
        """Return when a part has something new, or after `timeout_s`. May return for nothing.

        `length` is the number of tokens already taken, of which only a call with one part makes use.
        """
        if len(self._call.parts) == 1:
            await self._call.parts[0].view.changed(length, timeout_s)
            return
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._follow(part)) for part in self._call.parts]
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    def close(self) -> None:
        """Stop waiting. Does not await, so that it works where the reader itself is being cancelled."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()

    async def _follow(self, part: Part) -> None:
        length = 0
        while not part.is_over:
            await part.view.changed(length, None)
            length = part.view.fold.length
            self._news.set()
        self._news.set()
