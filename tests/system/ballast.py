"""Filling a broker's storage up to its limits, and making room again."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from broker.connection import BrokerConfig, Connection
from broker.errors import ApiError, StreamFull
from broker.roles import Role
from broker.subjects import STREAM_BLOBS, STREAM_TOKENS
from tests.system.stack import Stack

_SERVER_FULL = (10002, 10023)
_STREAM_FULL = (10077,)
_ACCOUNT_FULL = 10002
_NO_STREAM = 10059
_COPIES = 12
_MIB = 1 << 20
# By how much the limit is passed. What expires and is deleted meanwhile must not bring it below again.
_OVER = 1 << 17
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


async def fill_server(stack: Stack) -> None:
    """Store copies of copies until the server takes nothing any more, whatever the stream."""

    async def work(edge: Connection, topology: Connection) -> None:
        await _store_until(edge, _STREAM_FULL)
        for number in range(_COPIES):
            config = {"name": f"BALLAST-{number}", "storage": "file", "mirror": {"name": STREAM_BLOBS}}
            await _do(topology, f"STREAM.CREATE.BALLAST-{number}", config, but=_ACCOUNT_FULL)
        await _drop_oldest(topology, 4)
        await _store_until(edge, _SERVER_FULL)
        while await _excess(topology) < _OVER:
            await _drop_oldest(topology, 1)
            await _store(edge, _MIB - 2 * _OVER)
            await _store_until(edge, _SERVER_FULL)

    await _visit(stack, work)


async def _store_until(edge: Connection, err_codes: tuple[int, ...]) -> None:
    while (err_code := await _store(edge, _MIB)) not in err_codes:
        if err_code is not None:
            await asyncio.sleep(0.05)  # the copies are still being made


async def _store(edge: Connection, size: int) -> int | None:
    """The code of the refusal, if it is one."""
    try:
        await edge.publish_acked(f"inferflux.blob.{secrets.token_hex(8)}.0", bytes(size))
    except StreamFull as error:
        return error.err_code
    return None


async def _drop_oldest(topology: Connection, number: int) -> None:
    first = (await topology.api(f"STREAM.INFO.{STREAM_BLOBS}"))["state"]["first_seq"]
    await topology.api(f"STREAM.PURGE.{STREAM_BLOBS}", {"seq": first + number})


async def _excess(topology: Connection) -> int:
    info = await topology.api("INFO")
    excess: int = info["storage"] - info["limits"]["max_storage"]
    return excess


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
