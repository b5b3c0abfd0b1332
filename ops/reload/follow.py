"""When the configuration is to be read again."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ops.reload.sources import SettingsSources
from ops.watch.file_watch import FileWatch


async def follow_config(sources: SettingsSources, on_change: Callable[[], None]) -> None:
    """Call back whenever the configuration file has changed, if there is one. Until cancelled."""
    if sources.config_file is None:
        await asyncio.Event().wait()
        return
    watch = FileWatch(sources.config_file, sources.settings.registry.poll_s, sources.config_mark)
    await watch.run(on_change)


@asynccontextmanager
async def reread_when_asked(sources: SettingsSources, on_asked: Callable[[], None]) -> AsyncIterator[None]:
    """While it is open, SIGHUP and a changed configuration file call back, on the loop."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, on_asked)
    following = asyncio.create_task(follow_config(sources, on_asked), name="configuration")
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        loop.remove_signal_handler(signal.SIGHUP)
