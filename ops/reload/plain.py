"""Reading the configuration again in processes that are no edge: the log level, and what else they make of it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ops.errors import CommandError
from ops.logs import set_level
from ops.reload.follow import follow_config
from ops.reload.sources import Again, SettingsSources
from ops.settings.errors import SettingsError

WORKER_CONCERNS = ("runtime.", "nats.", "metrics.", "logging.", "registry.allow_downloads")
UP_CONCERNS = ("nats.", "logging.")
log = logging.getLogger("inferflux.reload")


class PlainReloader:
    """Reads again when asked. `then` is called with what was read; what it raises of ours is logged."""

    def __init__(self, sources: SettingsSources, then: Callable[[Again], Awaitable[None]] | None = None) -> None:
        self._sources = sources
        self._then = then
        self._asked = asyncio.Event()

    def ask(self) -> None:
        self._asked.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it is open, askings are heard, and a change of the file is one."""
        tasks = [
            asyncio.create_task(self._run(), name="reload"),
            asyncio.create_task(follow_config(self._sources, self.ask), name="configuration"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _run(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._read()
            except (SettingsError, CommandError, OSError) as error:
                log.error("the configuration stays as it was: %s", error)

    async def _read(self) -> None:
        again = await asyncio.to_thread(self._sources.read)
        if self._then is not None:
            await self._then(again)
        set_level(again.settings.logging.level)
        log.info("configuration read again")
        if again.needs_restart:
            log.warning("changed, and needs a restart: %s", ", ".join(again.needs_restart))
