"""What the broker of a running stack holds, asked by the role that may only look."""

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator
from typing import NamedTuple

from broker.connection import BrokerConfig, Connection
from broker.roles import Role
from broker.subjects import STREAM_DLQ, STREAM_REQUESTS, STREAM_TOKENS
from tests.system.stack import Stack


class QueueState(NamedTuple):
    """Messages in the request stream, and deliveries not yet acknowledged."""

    num_messages: int
    num_ack_pending: int


@contextlib.asynccontextmanager
async def inspecting(stack: Stack) -> AsyncIterator[Connection]:
    config = BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR, "test", stack.data_dir / "nats" / "creds")
    connection = await Connection.open(config)
    try:
        yield connection
    finally:
        await connection.close()


async def read_queue_state(stack: Stack) -> QueueState:
    async with inspecting(stack) as connection:
        stream = await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}")
        consumers = await connection.api(f"CONSUMER.LIST.{STREAM_REQUESTS}")
    pending = sum(consumer["num_ack_pending"] for consumer in consumers["consumers"])
    return QueueState(stream["state"]["messages"], pending)


def queue_state(stack: Stack) -> QueueState:
    return asyncio.run(read_queue_state(stack))


async def _last_sequences(stack: Stack) -> tuple[int, ...]:
    async with inspecting(stack) as connection:
        infos = [await connection.api(f"STREAM.INFO.{stream}") for stream in (STREAM_REQUESTS, STREAM_TOKENS)]
    return tuple(info["state"]["last_seq"] for info in infos)


def last_sequences(stack: Stack) -> tuple[int, ...]:
    """Of the request stream and the journals. Equal at two times: nothing was written between them."""
    return asyncio.run(_last_sequences(stack))


async def _journal_records(stack: Stack) -> dict[str, int]:
    async with inspecting(stack) as connection:
        info = await connection.api(f"STREAM.INFO.{STREAM_TOKENS}", {"subjects_filter": ">"})
    return info["state"].get("subjects") or {}


def journal_records(stack: Stack) -> dict[str, int]:
    """How many records each subject of the journals holds."""
    return asyncio.run(_journal_records(stack))


async def _dead_letters(stack: Stack) -> list[str]:
    async with inspecting(stack) as connection:
        info = await connection.api(f"STREAM.INFO.{STREAM_DLQ}", {"subjects_filter": ">"})
    return [subject.rpartition(".")[2] for subject in info["state"].get("subjects") or {}]


def dead_letters(stack: Stack) -> list[str]:
    """Ids of the requests that were given up."""
    return asyncio.run(_dead_letters(stack))


def num_subscriptions(stack: Stack) -> int:
    """The server's own count of subscriptions (`/subsz`)."""
    (ports,) = (stack.data_dir / "nats" / "ports").glob("*.ports")
    monitoring = json.loads(ports.read_text())["monitoring"][0]
    with urllib.request.urlopen(f"{monitoring}/subsz") as answer:
        count: int = json.load(answer)["num_subscriptions"]
    return count
