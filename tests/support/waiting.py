"""Waiting for what offers no event."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool | Awaitable[bool]], every_s: float = 0.01) -> None:
    """Look until `condition()` is true; the test's own timeout ends it."""
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        await asyncio.sleep(every_s)
