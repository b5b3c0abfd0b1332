"""A long queue of requests that nobody waits for, and somebody who does.

Requests of class batch are put on the queue as an offline publisher does, without an edge. Meanwhile the worker takes
nothing; then it is let go, and requests of class normal come through the edge while it works the queue off.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from broker.broker_config import BrokerConfig
from broker.connection import Connection
from broker.errors import BrokerError
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS, consumer_name
from broker.work_queue import WorkQueue
from ops.bench.answer import Sample
from ops.bench.arm import Server
from ops.bench.connection import ask, chat_request
from ops.bench.errors import ArmFailed
from ops.bench.memory import resident_bytes
from ops.bench.our_stack import data_dir, running_stack
from ops.bench.stack.open_loop import open_loop
from ops.bench.stack.overhead import NUM_TOKENS, Say, message
from ops.bench.stack.results import Backlog, Quantiles
from ops.bench.stack.sizes import BacklogSizes
from ops.serving.broker import credentials_dir
from ops.supervisor.run_file import read_run_file
from schemas.errors import ServingError
from schemas.requests import Endpoint, GenerateRequest, Identity, PriorityClass, SamplingParams, TextPrompt

MODEL = "echo"
# An id like that of an edge: the journals are under it, and nobody follows them.
_PUBLISHER = "bench"
_BROKER = "nats-server"
_ASKED_PER_S = 5.0
_SEQUENCES = 32
_CONTEXT = 512
_PUBLISHERS = 128
_POLL_S = 0.05
_DRAIN_LIMIT_S = 300.0
_DAY_MS = 86_400_000


async def backlog(sizes: BacklogSizes, folder: Path, say: Say) -> Backlog:
    """Raises ArmFailed, RequestFailed."""
    model: dict[str, str | int] = {
        "source": "echo",
        "backend": "echo",
        "sequences": _SEQUENCES,
        "context": _CONTEXT,
        "queue_max": sizes.num_requests,
    }
    async with running_stack(folder, model, scopes="generate+read+admin") as server, _broker(folder) as queue:
        try:
            return await _measure(sizes, server, queue, say)
        except (BrokerError, ServingError) as error:
            raise ArmFailed(f"queue: {error}") from None


class _Queue:
    """The request queue of class batch, as a publisher and an operator see it."""

    def __init__(self, edge: Connection, topology: Connection) -> None:
        self._work = WorkQueue(edge)
        self._topology = topology

    async def publish(self, num_requests: int) -> None:
        """So many small requests, some on their way at any time. Raises ServingError."""
        numbers = iter(range(num_requests))

        async def publisher() -> None:
            for number in numbers:
                await self._work.submit(_request(number))

        await asyncio.gather(*(publisher() for _ in range(min(_PUBLISHERS, num_requests))))

    async def num_waiting(self) -> int:
        """Raises BrokerError."""
        name = consumer_name(MODEL, PriorityClass.BATCH)
        info: dict[str, Any] = await self._topology.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.{name}")
        waiting: int = info["num_pending"]
        return waiting

    async def disk_bytes(self) -> int:
        """Raises BrokerError."""
        info = await self._topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
        size: int = info["state"]["bytes"]
        return size

    async def until_waiting(self, at_most: int) -> int:
        """Wait for the queue to be so short; how long it is then. Raises BrokerError, ArmFailed."""
        try:
            async with asyncio.timeout(_DRAIN_LIMIT_S):
                while (waiting := await self.num_waiting()) > at_most:  # noqa: ASYNC110 - the broker sends no event
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ArmFailed(f"the queue was not down to {at_most} within {_DRAIN_LIMIT_S:.0f} s") from None
        return waiting


async def _measure(sizes: BacklogSizes, server: Server, queue: _Queue, say: Say) -> Backlog:
    broker = server.processes[_BROKER]
    before = await _first_tokens(server, sizes.num_asked)
    broker_before = resident_bytes(broker)
    worker = await _cordon(server, on=True)
    started_at = time.perf_counter()
    await queue.publish(sizes.num_requests)
    publish_s = time.perf_counter() - started_at
    say(f"  {sizes.num_requests} requests queued, {sizes.num_requests / publish_s:,.0f}/s")
    broker_full, disk, full = resident_bytes(broker), await queue.disk_bytes(), await queue.num_waiting()
    await _cordon(server, on=False, worker=worker)
    started_at = time.perf_counter()
    asking = asyncio.create_task(_first_tokens(server, sizes.num_asked))
    try:
        left = await queue.until_waiting(max(0, full - sizes.num_drained))
        drain_s = time.perf_counter() - started_at
        meanwhile = await asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    found = Backlog(
        num_requests=full,
        publish_s=publish_s,
        broker_before_bytes=broker_before,
        broker_full_bytes=broker_full,
        broker_disk_bytes=disk,
        num_drained=full - left,
        drain_s=drain_s,
        before=before,
        meanwhile=meanwhile,
        num_left_meanwhile=await queue.num_waiting(),
    )
    say(f"  {found.drained_per_s:,.0f}/s drained; first token p50 {before.p50_ms:.1f}, then {meanwhile.p50_ms:.1f} ms")
    return found


async def _first_tokens(server: Server, num_asked: int) -> Quantiles:
    async def first_token(number: int) -> float:
        sample: Sample = await ask(server.target, chat_request(server.target, message(number), NUM_TOKENS))
        return sample.ttft_s

    return Quantiles.of(await open_loop(_ASKED_PER_S, num_asked, first_token))


async def _cordon(server: Server, *, on: bool, worker: str = "") -> str:
    """Whether the worker takes anything; its id. Raises ArmFailed."""
    host, port, key = server.target
    base = f"http://{host}:{port}/v1/admin/workers"
    async with httpx2.AsyncClient(trust_env=False, timeout=30, headers={"Authorization": f"Bearer {key}"}) as client:
        try:
            worker = worker or str((await client.get(base)).json()["data"][0]["id"])
            response = await client.post(f"{base}/{worker}/{'cordon' if on else 'uncordon'}")
        except httpx2.TransportError as error:
            raise ArmFailed(f"the worker cannot be told: {error}") from None
    if response.status_code != 200:
        raise ArmFailed(f"the worker cannot be told: {response.status_code} {response.text[:200]}")
    return worker


@asynccontextmanager
async def _broker(folder: Path) -> AsyncIterator[_Queue]:
    running = read_run_file(data_dir(folder))
    assert running is not None
    url, logins = running.nats.url, credentials_dir(data_dir(folder))
    try:
        edge = await Connection.open(BrokerConfig(url, Role.EDGE, "bench-publisher", logins))
    except BrokerError as error:
        raise ArmFailed(f"broker: {error}") from None
    try:
        topology = await Connection.open(BrokerConfig(url, Role.TOPOLOGY, "bench-looks", logins))
        try:
            yield _Queue(edge, topology)
        finally:
            await topology.close()
    finally:
        await edge.close()


def _request(number: int) -> GenerateRequest:
    now = time.time()
    return GenerateRequest(
        request_id=f"{number:08d}-{secrets.token_hex(4)}",
        edge=_PUBLISHER,
        model=MODEL,
        endpoint=Endpoint.COMPLETIONS,
        created=int(now),
        deadline_ms=int(now * 1000) + _DAY_MS,
        identity=Identity(owner="bench"),
        prompt=TextPrompt(message(number)),
        sampling=SamplingParams(seed=number, max_tokens=NUM_TOKENS),
        priority=PriorityClass.BATCH,
    )
