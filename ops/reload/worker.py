"""A worker's configuration, read again while it runs."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from ops.reload.plain import PlainReloader
from ops.reload.sources import SettingsSources


async def with_reloads(work: Coroutine[Any, Any, None], sources: SettingsSources) -> None:
    """Do `work`, and meanwhile read the configuration again on SIGHUP and when its file changes."""
    loop = asyncio.get_running_loop()
    reloader = PlainReloader(sources)
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    try:
        async with reloader.running():
            await work
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
