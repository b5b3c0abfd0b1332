"""The broker's side of `up`: topology applied and kept, configured models registered."""

import logging
from collections.abc import Sequence

from broker.connection import BrokerConfig, Connection
from broker.registry import Registry
from broker.topology import Topology
from broker.topology_keeper import TopologyKeeper
from ops.serving.topology import register
from ops.settings.settings import NatsSettings
from schemas.control import ModelCard

log = logging.getLogger("inferflux.up")


class Fleet:
    """Holds the topology role for as long as `up` runs."""

    def __init__(self, connection: Connection, registry: Registry, keeper: TopologyKeeper) -> None:
        self._connection = connection
        self._registry = registry
        self._keeper = keeper

    @classmethod
    async def open(
        cls, config: BrokerConfig, cards: Sequence[ModelCard], nats: NatsSettings, *, is_ours_alone: bool
    ) -> "Fleet":
        """Connect, apply the topology, register the models, keep both so. Raises BrokerError."""
        connection = await Connection.open(config)
        topology = Topology(connection, replicas=nats.replicas, max_file_bytes=nats.max_file_bytes)
        registry = Registry(connection)
        fleet = cls(connection, registry, TopologyKeeper(topology, registry))
        try:
            changes = await register(topology, registry, cards, is_ours_alone=is_ours_alone)
            log.info("topology applied", extra={"changes": len(changes), "models": [card.id for card in cards]})
            await fleet._keeper.start()
        except BaseException:
            await fleet.close()
            raise
        return fleet

    async def close(self) -> None:
        await self._keeper.close()
        await self._registry.close()
        await self._connection.close()
