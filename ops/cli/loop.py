"""The event loop of the processes: uvloop where it exists."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`. What has been imported by now stays: no collection looks through it again, in mid-request."""
    gc.collect()
    gc.freeze()
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
