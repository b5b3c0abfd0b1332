"""Waiting for what others bring about."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(holds: Callable[[], Awaitable[bool] | bool]) -> None:
    """Return once `holds()`; the test's own timeout is the limit."""
    while True:
        result = holds()
        if result if isinstance(result, bool) else await result:
            return
        await asyncio.sleep(0.01)
