"""Waiting for work or for a signal."""

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence


async def first_of(work: Awaitable[None], instead: asyncio.Event) -> bool:
    """Whether `work` ended before the event; it is cancelled when not. Raises what it raises."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(instead.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, waiting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def all_of(waits: Sequence[Awaitable[None]]) -> None:
    """Wait for all; the first failure is raised at once."""
    if waits:
        await asyncio.gather(*waits)
