"""Whether the models of a worker are registered: without a card in the bucket `models` no request comes for one."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection

from broker.connection import Connection
from broker.registry import Registry

log = logging.getLogger("inferflux.worker")

# The bucket itself may be missing, and the registry waits for it without end.
PATIENCE_S = 2.0


class Registration:
    """Follows the registry and logs, once for each change, which of `model_ids` stand there.

    `on_registered(model_id)` is called on the loop.
    """

    def __init__(
        self, connection: Connection, model_ids: Collection[str], on_registered: Callable[[str], None]
    ) -> None:
        self._registry = Registry(connection, watch_workers=False)
        self._on_registered = on_registered
        self._is_registered: dict[str, bool | None] = dict.fromkeys(model_ids)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name="registration")

    async def close(self) -> None:
        """Does nothing before `start`."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._registry.close()

    async def _follow(self) -> None:
        attaching = asyncio.create_task(self._registry.start(), name="registry of models")
        try:
            await asyncio.wait({attaching}, timeout=PATIENCE_S)
            if not attaching.done():
                self._compare()
            await attaching
        finally:
            attaching.cancel()
        self._compare()
        self._registry.on_change(self._compare)

    def _compare(self) -> None:
        for model_id, before in self._is_registered.items():
            is_registered = model_id in self._registry.models
            if is_registered == before:
                continue
            self._is_registered[model_id] = is_registered
            if is_registered:
                log.info("model %s is registered", model_id)
                self._on_registered(model_id)
            else:
                log.warning(
                    "model %s is not registered, so no request comes for it: run `inferflux topology apply` (or `up`) "
                    "with a configuration that names it",
                    model_id,
                )
