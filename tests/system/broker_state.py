"""What the broker of a running stack holds, asked by the role that may only look."""

import asyncio
import json
import urllib.request
from typing import NamedTuple

from broker.connection import BrokerConfig, Connection
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS
from tests.system.stack import Stack


class QueueState(NamedTuple):
    """Messages in the request stream, and deliveries not yet acknowledged."""

    num_messages: int
    num_ack_pending: int


async def _queue_state(stack: Stack) -> QueueState:
    config = BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR, "test", stack.data_dir / "nats" / "creds")
    connection = await Connection.open(config)
    try:
        stream = await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}")
        consumers = await connection.api(f"CONSUMER.LIST.{STREAM_REQUESTS}")
    finally:
        await connection.close()
    pending = sum(consumer["num_ack_pending"] for consumer in consumers["consumers"])
    return QueueState(stream["state"]["messages"], pending)


def queue_state(stack: Stack) -> QueueState:
    return asyncio.run(_queue_state(stack))


def num_subscriptions(stack: Stack) -> int:
    """The server's own count of subscriptions (`/subsz`)."""
    (ports,) = (stack.data_dir / "nats" / "ports").glob("*.ports")
    monitoring = json.loads(ports.read_text())["monitoring"][0]
    with urllib.request.urlopen(f"{monitoring}/subsz") as answer:
        count: int = json.load(answer)["num_subscriptions"]
    return count
