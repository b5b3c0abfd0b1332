"""Filling a broker's storage up to its limits, and making room again."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from broker.connection import BrokerConfig, Connection
from broker.errors import ApiError, BrokerUnavailable, StreamFull
from broker.roles import Role
from broker.subjects import STREAM_BLOBS, STREAM_TOKENS
from tests.system.stack import Stack

_SERVER_FULL = (10002, 10023)
_STREAM_FULL = (10077,)
_ACCOUNT_FULL = 10002
_NO_STREAM = 10059
_COPIES = 12
# Down to what no record of ours fits into any more.
_SIZES = (1 << 20, 1 << 16, 1 << 12, 1 << 8, 1)
Work = Callable[[Connection, Connection], Awaitable[None]]


async def _visit(stack: Stack, work: Work) -> None:
    credentials = stack.data_dir / "nats" / "creds"
    url = stack.run["nats"]["url"]
    edge = await Connection.open(BrokerConfig(url, Role.EDGE, "ballast", credentials))
    topology = await Connection.open(BrokerConfig(url, Role.TOPOLOGY, "ballast", credentials))
    try:
        await work(edge, topology)
    finally:
        await edge.close()
        await topology.close()


async def load_server(stack: Stack) -> None:
    """Take most of the server's room with copies of copies, which takes a while, and leave one copy's room free."""

    async def work(edge: Connection, topology: Connection) -> None:
        await _store_until(edge, _SIZES[0], _STREAM_FULL)
        for number in range(_COPIES):
            config = {"name": f"BALLAST-{number}", "storage": "file", "mirror": {"name": STREAM_BLOBS}}
            await _do(topology, f"STREAM.CREATE.BALLAST-{number}", config, but=_ACCOUNT_FULL)
        first = (await topology.api(f"STREAM.INFO.{STREAM_BLOBS}"))["state"]["first_seq"]
        await topology.api(f"STREAM.PURGE.{STREAM_BLOBS}", {"seq": first + 4})
        await _store_until(edge, _SIZES[0], _SERVER_FULL)
        await topology.api("STREAM.DELETE.BALLAST-0")
        await topology.api(f"STREAM.PURGE.{STREAM_BLOBS}")

    await _visit(stack, work)


async def fill_server(stack: Stack) -> None:
    """Behind `load_server`: store until the server takes nothing any more, whatever the stream."""

    async def work(edge: Connection, topology: Connection) -> None:
        for size in _SIZES:
            await _store_until(edge, size, _SERVER_FULL)

    await _visit(stack, work)


async def _store_until(edge: Connection, size: int, err_codes: tuple[int, ...]) -> None:
    while True:
        try:
            await edge.publish_acked(f"inferflux.blob.{secrets.token_hex(8)}.0", bytes(size))
        except StreamFull as error:
            if error.err_code in err_codes:
                return
            await asyncio.sleep(0.05)  # the copies are still being made
        except BrokerUnavailable:
            continue  # a slow disk is busy with the copies


async def empty_server(stack: Stack) -> None:
    """Take out what `fill_server` brought."""

    async def work(edge: Connection, topology: Connection) -> None:
        for number in range(_COPIES):
            await _do(topology, f"STREAM.DELETE.BALLAST-{number}", but=_NO_STREAM)
        await topology.api(f"STREAM.PURGE.{STREAM_BLOBS}")

    await _visit(stack, work)


async def _do(topology: Connection, name: str, body: dict[str, Any] | None = None, *, but: int) -> None:
    """An API request that one refusal does not hinder."""
    try:
        await topology.api(name, body)
    except ApiError as error:
        if error.err_code != but:
            raise


async def roll_journals(stack: Stack) -> None:
    """Write into the journals until everything that is in them now has been dropped."""

    async def work(edge: Connection, topology: Connection) -> None:
        last = (await topology.api(f"STREAM.INFO.{STREAM_TOKENS}"))["state"]["last_seq"]
        while (await topology.api(f"STREAM.INFO.{STREAM_TOKENS}"))["state"]["first_seq"] <= last:
            for _ in range(8):
                await edge.publish_acked("inferflux.tok.ballast.ballast.head", bytes(1 << 20))

    await _visit(stack, work)
