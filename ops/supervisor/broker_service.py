"""The embedded nats-server under `up`: started, watched, and started again when it ends or cannot write any more."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from broker.errors import BrokerError
from broker.server import EmbeddedServer

log = logging.getLogger("inferflux.up")

POLL_EVERY_S = 1.0
# One slow answer is no illness; a stream in write error stays so until a restart.
UNHEALTHY_POLLS = 3
RETRY_S = 1.0


class BrokerService:
    """Owns the server. `on_restart` is told of each new process, which keeps its port and its data."""

    def __init__(
        self, data_dir: Path, port: int | None, *, max_file_bytes: int | None, on_restart: Callable[[], None]
    ) -> None:
        self.server = EmbeddedServer(data_dir, port, max_file_bytes=max_file_bytes)
        self._on_restart = on_restart
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start the server and the watch over it; returns the url. Raises BrokerError with the server's last words."""
        url = await self.server.start()
        self._watching = asyncio.create_task(self._watch(), name="broker watch")
        return url

    async def stop(self) -> None:
        await self._stop_watching()
        await self.server.stop()

    async def kill(self) -> None:
        await self._stop_watching()
        await self.server.kill()

    async def _stop_watching(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self) -> None:
        while True:
            reason = await self._wait_for_trouble()
            log.error("nats-server: %s; it is started again", reason)
            await self.server.stop()
            while True:
                try:
                    await self.server.start()
                    break
                except (BrokerError, OSError) as error:
                    log.error("%s; next try in %.0f s", error, RETRY_S)
                    await asyncio.sleep(RETRY_S)
            self._on_restart()

    async def _wait_for_trouble(self) -> str:
        ended = asyncio.create_task(self.server.wait())
        failed_polls = 0
        try:
            while True:
                done, _ = await asyncio.wait({ended}, timeout=POLL_EVERY_S)
                if done:
                    return f"ended with code {ended.result()} ({self.server.last_words()})"
                failed_polls = 0 if await self.server.healthy() else failed_polls + 1
                if failed_polls == UNHEALTHY_POLLS:
                    return f"unhealthy ({self.server.last_words()})"
        finally:
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ended
