"""The manifest as an edge follows it, or `up` without one: read when it changes, registered, its standing told.

While it is missing, half written or wrong, what it last said stays registered.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from broker.errors import BrokerError
from broker.registry import Registry
from ops.manifest.cards import register_all
from ops.manifest.document import ManifestUnusable, read_manifest
from ops.settings.settings import ModelSettings, RegistrySettings
from ops.watch.file_watch import NOTHING_SEEN, SETTLE_S, FileWatch

if TYPE_CHECKING:
    from producer.edge.services import Services

log = logging.getLogger("inferflux.manifest")

RETRY_S = 1.0


class Standing(Protocol):
    """Who is told how it stands: of what the file says now it cannot use, or not yet, or what was taken."""

    def refused(self, reason: str) -> None: ...

    def waits(self, reason: str) -> None: ...

    def taken(self, models: tuple[str, ...], skipped: Mapping[str, str]) -> None: ...


class Untold:
    """For a process that nobody asks: the log says it."""

    def refused(self, reason: str) -> None:
        pass

    def waits(self, reason: str) -> None:
        pass

    def taken(self, models: tuple[str, ...], skipped: Mapping[str, str]) -> None:
        pass


class ManifestFollower:
    """Any number of edges may follow the same file: whoever comes later finds nothing to change."""

    def __init__(
        self,
        path: Path,
        registry: Registry,
        standing: Standing,
        *,
        poll_s: float,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._path = path
        self._registry = registry
        self._standing = standing
        self._watch = FileWatch(path, poll_s, NOTHING_SEEN, settle_s=settle_s)
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        watching = asyncio.create_task(self._watch.run(self._changed.set), name="manifest file")
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._take()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _take(self) -> None:
        try:
            models = await asyncio.to_thread(read_manifest, self._path)
        except ManifestUnusable as error:
            log.error("the manifest is not used, the models stay as they were: %s", error)
            self._standing.refused(str(error))
            return
        await self._register(models)

    async def _register(self, models: tuple[ModelSettings, ...]) -> None:
        """Try until it is done, or the file has changed again."""
        while not self._changed.is_set():
            try:
                skipped = await register_all(self._registry, models)
            except BrokerError as error:
                log.warning("the manifest is not registered yet: %s", error)
                self._standing.waits(str(error))
                await asyncio.sleep(RETRY_S)
                continue
            for reason in skipped.values():
                log.warning("the manifest: %s, and left as it is", reason)
            ids = tuple(model.id for model in models)
            log.info("manifest registered", extra={"models": list(ids)})
            self._standing.taken(ids, skipped)
            return


def manifest_beside(settings: RegistrySettings) -> Callable[["Services"], AbstractAsyncContextManager[None]]:
    """Follows the manifest while an edge serves; without a manifest it does nothing."""

    @asynccontextmanager
    async def beside(services: "Services") -> AsyncIterator[None]:
        if settings.path is None:
            yield
            return
        services.manifest.begin(settings.path)
        async with following(settings, services.registry, services.manifest):
            yield

    return beside


@asynccontextmanager
async def following(settings: RegistrySettings, registry: Registry, standing: Standing) -> AsyncIterator[None]:
    """While it is open, what the manifest says is registered; `registry` has been started."""
    assert settings.path is not None
    follower = ManifestFollower(settings.path, registry, standing, poll_s=settings.poll_s)
    task = asyncio.create_task(follower.run(), name="manifest")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
