"""Re-apply the topology whenever it may have to change: held by whoever runs with the topology role."""

import asyncio
import contextlib
import logging

from broker.errors import BrokerError
from broker.registry import Registry
from broker.topology import Topology
from schemas.control import ModelCard

_log = logging.getLogger("inferflux.broker.topology")

_PERIOD_S = 60.0
_RETRY_S = 1.0


class TopologyKeeper:
    """Keeps the topology applied: now, after every reconnection, and when models or the fleet's slots change.

    Also once a minute, for the consumers of removed models that have run empty by then. Not at once: edges that have
    not heard of the removal yet may still let requests in.
    """

    def __init__(self, topology: Topology, registry: Registry) -> None:
        self._connection = topology.connection
        self._topology = topology
        self._registry = registry
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._applied: tuple[list[ModelCard], int] | None = None

    async def start(self) -> None:
        """Create streams and buckets, start the registry on them, apply the rest. Raises BrokerError."""
        await self._topology.apply_streams()
        await self._registry.start()
        await self._apply()
        self._connection.on_reconnect(self._reconnected)
        self._registry.on_change(self._changed)
        self._task = asyncio.create_task(self._run(), name="topology")

    async def close(self) -> None:
        """Stop; the topology stays as it is."""
        self._connection.remove_on_reconnect(self._reconnected)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _reconnected(self) -> None:
        self._wake.set()

    def _changed(self) -> None:
        """Workers renew their entries all the time; only other models or slots make another topology."""
        if self._wanted() != self._applied:
            self._wake.set()

    def _wanted(self) -> tuple[list[ModelCard], int]:
        return list(self._registry.models.values()), self._registry.slots()

    async def _apply(self, *, prune: bool = True) -> None:
        wanted = self._wanted()
        await self._topology.apply(*wanted, prune=prune)
        self._applied = wanted

    async def _run(self) -> None:
        wait_s, trouble = _PERIOD_S, ""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            is_due = not self._wake.is_set() and not trouble
            self._wake.clear()
            await self._connection.wait_connected(_PERIOD_S)
            try:
                await self._topology.apply_streams()  # a lost bucket would otherwise look like no models
                await self._registry.start()
                await self._apply(prune=is_due)
                wait_s, trouble = _PERIOD_S, ""
            except BrokerError as error:
                if trouble != str(error):
                    _log.warning("the topology is not applied: %s", error)
                wait_s, trouble = _RETRY_S, str(error)
