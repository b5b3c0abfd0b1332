"""When the configuration is to be read again."""

import asyncio
from collections.abc import Callable

from ops.reload.sources import SettingsSources
from ops.watch.file_watch import FileWatch


async def follow_config(sources: SettingsSources, on_change: Callable[[], None]) -> None:
    """Call back whenever the configuration file has changed, if there is one. Until cancelled."""
    if sources.config_file is None:
        await asyncio.Event().wait()
        return
    watch = FileWatch(sources.config_file, sources.settings.registry.poll_s, sources.config_mark)
    await watch.run(on_change)
