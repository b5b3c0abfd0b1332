"""The broker's side of `up`: topology applied and kept, models registered, the work of ended workers handed back."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from broker.connection import BrokerConfig, Connection
from broker.errors import BrokerError
from broker.orphans import hand_back_orphans
from broker.registry import Registry
from broker.specs import ACK_WAIT_S
from broker.topology import Topology
from broker.topology_keeper import TopologyKeeper
from ops.serving.topology import register
from ops.settings.settings import NatsSettings
from schemas.control import ModelCard

log = logging.getLogger("inferflux.up")

RETRY_S = 0.2
CLOSING_S = 2.0


class Fleet:
    """Holds the topology role for as long as `up` runs. `own` are the models of its configuration; without one of its
    own it serves all that are registered. `is_alone`: of no other configuration is anything in this broker.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        registry: Registry,
        keeper: TopologyKeeper,
        *,
        is_alone: bool,
    ) -> None:
        self._connection = connection
        self._topology = topology
        self.own: set[str] = set()
        self._is_alone = is_alone
        self.registry = registry
        self._keeper = keeper
        self._handing_back: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        config: BrokerConfig,
        cards: Sequence[ModelCard],
        nats: NatsSettings,
        *,
        is_ours_alone: bool,
        is_stand_in: bool = False,
    ) -> "Fleet":
        """Connect, apply the topology, register the models, keep both so. Raises BrokerError.

        `is_stand_in`: nobody named these models, and they are for a broker where none is registered yet.
        """
        connection = await Connection.open(config)
        topology = Topology(connection, replicas=nats.replicas, max_file_bytes=nats.max_file_bytes)
        registry = Registry(connection)
        keeper = TopologyKeeper(topology, registry)
        fleet = cls(connection, topology, registry, keeper, is_alone=is_ours_alone)
        try:
            if is_stand_in:
                await topology.apply_streams()
                await registry.start()
                cards = () if registry.models else cards
            fleet.own.update(card.id for card in cards)
            changes = await register(topology, registry, cards, is_ours_alone=is_ours_alone)
            log.info("topology applied", extra={"changes": len(changes), "models": [card.id for card in cards]})
            await fleet._keeper.start()
        except BaseException:
            await fleet.close()
            raise
        return fleet

    @property
    def cards(self) -> dict[str, ModelCard]:
        """What this `up` is to serve, the default model first."""
        cards = sorted(self.registry.models.values(), key=lambda card: not card.default)
        return {card.id: card for card in cards if self._is_ours(card)}

    def _is_ours(self, card: ModelCard) -> bool:
        """Of another configuration's models its own workers take care."""
        return self._is_alone or not self.own or card.origin != "config" or card.id in self.own

    def on_change(self, callback: Callable[[], None]) -> None:
        """Called on the loop after each change of models or workers."""
        self.registry.on_change(callback)

    def serves(self, worker_id: str, model_id: str) -> bool:
        """Whether a worker says that it does."""
        advert = self.registry.workers.get(worker_id)
        return advert is not None and any(served.id == model_id for served in advert.models)

    def skips(self, worker_id: str, card: ModelCard) -> bool:
        """Whether a worker says that what the card asks for needs another process."""
        advert = self.registry.workers.get(worker_id)
        return advert is not None and advert.skipped.get(card.id) == card.load_key()

    async def register(self, cards: Sequence[ModelCard], gone: Sequence[str]) -> None:
        """Cards of a configuration that has changed; `gone` are models that it no longer has. Raises BrokerError."""
        self.own.update(card.id for card in cards)
        self.own.difference_update(gone)
        await register(self._topology, self.registry, cards, is_ours_alone=False)
        for model_id in gone:
            card = self.registry.models.get(model_id)
            if card is not None and card.origin == "config":
                await self.registry.delete_model(model_id)

    def worker_ended(self, worker_id: str, started_at: float) -> None:
        """Give what it still held to others, now rather than when its leases run out. `started_at` is Unix time."""
        task = asyncio.create_task(self._hand_back(worker_id, started_at), name=f"hand back for {worker_id}")
        self._handing_back.add(task)
        task.add_done_callback(self._handing_back.discard)

    async def close(self) -> None:
        tasks = list(self._handing_back)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSING_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._keeper.close()
        await self.registry.close()
        await self._connection.close()

    async def _hand_back(self, worker_id: str, started_at: float) -> None:
        reason: BrokerError | TimeoutError = TimeoutError("the broker is away")
        try:
            async with asyncio.timeout(ACK_WAIT_S):
                while True:
                    await self._connection.wait_connected(ACK_WAIT_S)
                    try:
                        number = await hand_back_orphans(self._connection, worker_id, started_at)
                        break
                    except BrokerError as error:  # it is just coming back
                        reason = error
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            log.warning("leases of %s are left to run out: %s", worker_id, reason)
            return
        if number:
            log.warning("handed back what %s held", worker_id, extra={"requests": number})
