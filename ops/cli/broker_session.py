"""A short visit to the broker in the topology role, for commands."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from broker.connection import Connection
from broker.errors import BrokerError
from broker.registry import Registry
from broker.roles import Role
from broker.topology import Change, Topology
from ops.cli.options import given_flags
from ops.errors import CannotStart
from ops.logs import configure
from ops.serving.broker import broker_config
from ops.serving.registering import model_card
from ops.settings.loader import load
from ops.settings.settings import NatsSettings
from schemas.control import ModelCard

Visit = Callable[[Topology, Registry, list[ModelCard]], Awaitable[list[Change]]]


async def visit_broker(params: Mapping[str, Any], visit: Visit) -> list[Change]:
    """Read the settings, connect, call `visit` with the configured models' cards. Raises CannotStart when refused."""
    settings = load(os.environ, given_flags(params))
    configure(level="warning", form=settings.logging.format, process="topology")
    cards = [model_card(model) for model in settings.models]
    try:
        connection = await Connection.open(broker_config(settings, Role.TOPOLOGY, "inferflux-topology"))
        registry = Registry(connection)
        try:
            return await visit(_topology(connection, settings.nats), registry, cards)
        finally:
            await registry.close()
            await connection.close()
    except BrokerError as error:
        raise CannotStart(str(error)) from None


def _topology(connection: Connection, nats: NatsSettings) -> Topology:
    return Topology(connection, replicas=nats.replicas, max_file_bytes=nats.max_file_bytes)
