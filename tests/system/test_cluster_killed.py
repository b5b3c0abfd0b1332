"""On a cluster each process is killed under load: accepted requests finish, and service goes on.

Whoever led a stream or served a client, each answer is the undisturbed one and its journal has exactly one end.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import openai
import pytest

from broker.connection import BrokerConfig, Connection
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, parse_journal
from schemas.codec import decode_event
from schemas.events import Cancelled, Failed, Finished
from tests.support.cluster import Node
from tests.support.counts import full_or
from tests.system.beside import Beside
from tests.system.deployment import Deployment, deployed, is_ready
from tests.system.stack import KEY, fetch, running, until

CLIENTS = 8
NUM_TOKENS = 60
ROUNDS = full_or(3, reduced=1)
# Edges and workers that are killed in a round; and servers besides the two leaders.
NUM_OF_A_KIND = full_or(2, reduced=1)
NUM_FURTHER_SERVERS = full_or(1, reduced=0)

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(full_or(600, reduced=150))]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("deployment"), "echo:random?rate=100", sequences=CLIENTS) as started:
        yield started


class Load:
    """Clients that ask one question after the other, each with a key of its own, of whichever edge is there."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._numbers = itertools.count()
        self._expected: dict[int, str] = {}
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._done = [0] * CLIENTS
        self.longest_gap_s = 0.0
        self.num_answers = 0
        self.num_broken = 0
        self.refusals: Counter[str] = Counter()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        for client in range(CLIENTS):
            self._expected[client] = await self._answer(client, key=None)
        self._tasks = [asyncio.create_task(self._ask_on(client)) for client in range(CLIENTS)]
        try:
            yield self
            self._is_over = True
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    async def goes_on(self) -> float:
        """Wait until every client has had an answer to something asked from now on; the longest silence meanwhile."""
        self.longest_gap_s = 0.0
        wanted = [done + 2 for done in self._done]  # the one that is running, and the next
        while any(done < needed for done, needed in zip(self._done, wanted, strict=True)):
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)
        return self.longest_gap_s

    async def _ask_on(self, client: int) -> None:
        while not self._is_over:
            answer = await self._answer(client, key=f"question-{next(self._numbers)}")
            assert answer == self._expected[client]
            self._done[client] += 1
            self.num_answers += 1

    async def _answer(self, client: int, key: str | None) -> str:
        """Ask until it is answered: a broken connection or a refusal is followed by the same call to the other edge."""
        for attempt in itertools.count():
            edges = list(self._deployment.edges.values())
            try:
                return await self._stream(edges[(client + attempt) % len(edges)], client, key)
            except openai.APIStatusError as error:
                assert error.status_code == 503 and "retry-after" in error.response.headers, error
                self.refusals[str(error.code)] += 1
            except openai.APIConnectionError:
                self.num_broken += 1
            await asyncio.sleep(0.05)
        raise AssertionError

    async def _stream(self, edge: Beside, client: int, key: str | None) -> str:
        parts: list[str] = []
        last = time.monotonic()
        async with (
            openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0, timeout=60) as asking,
            await asking.completions.create(
                model="echo",
                prompt=f"prompt {client}",
                max_tokens=NUM_TOKENS,
                temperature=0.9 if client % 2 else 0.0,
                seed=client,
                stream=True,
                extra_body={"ignore_eos": True},
                extra_headers={"Idempotency-Key": key} if key else {},
            ) as stream,
        ):
            async for chunk in stream:
                self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - last)
                last = time.monotonic()
                parts += [choice.text for choice in chunk.choices]
        return "".join(parts)


async def kill_server(deployment: Deployment, load: Load, victim: Node) -> None:
    cluster = deployment.cluster
    leaders = {stream: await asyncio.to_thread(cluster.leader, stream) for stream in (STREAM_TOKENS, STREAM_REQUESTS)}
    led = ", ".join(stream for stream, leader in leaders.items() if leader is victim)
    victim.kill()
    silence_s = await load.goes_on()
    print(f"killed {victim.name}, which led {led or 'neither stream'}: longest silence {silence_s:.1f} s")
    victim.start()
    await asyncio.to_thread(until, cluster.is_healthy, "every server has its copies again")


async def kill_servers(deployment: Deployment, load: Load) -> None:
    """The leader of the journal, that of the requests, and whoever is left."""
    left = set(deployment.cluster.nodes.values())
    for stream in (STREAM_TOKENS, STREAM_REQUESTS):
        leader = await asyncio.to_thread(deployment.cluster.wait_leader, stream)
        left.discard(leader)
        await kill_server(deployment, load, leader)
    for node in list(left)[:NUM_FURTHER_SERVERS]:
        await kill_server(deployment, load, node)


async def kill_process(deployment: Deployment, load: Load, name: str) -> None:
    """An edge or a worker, which an operator starts again."""
    victim = {**deployment.edges, **deployment.workers}[name]
    victim.kill()
    silence_s = await load.goes_on()
    print(f"killed {name}: longest silence {silence_s:.1f} s")
    if name in deployment.workers:
        await asyncio.to_thread(deployment.start_worker, name)
    else:
        await asyncio.to_thread(deployment.start_edge, name, int(victim.url.rpartition(":")[2]))
        await asyncio.to_thread(until, partial(is_ready, deployment.edges[name]), f"{name} knows the workers")


async def check_journals(deployment: Deployment) -> int:
    """Every journal has one end, and nothing is left in the queue; returns how many journals there are."""
    config = BrokerConfig(deployment.cluster.url, Role.INSPECTOR_FULL, "test", deployment.cluster.credentials)
    connection = await Connection.open(config)
    try:
        await nothing_is_queued(connection)
        last = (await connection.api(f"STREAM.INFO.{STREAM_TOKENS}"))["state"]["last_seq"]
        records = await read_records(
            connection, STREAM_TOKENS, "inferflux.tok.>", is_complete=lambda found: found[-1].seq == last
        )
    finally:
        await connection.close()
    requests = {parse_journal(record.subject).request_id for record in records}
    ends = Counter(
        parse_journal(record.subject).request_id
        for record in records
        if isinstance(decode_event(record.payload), Finished | Failed | Cancelled)
    )
    assert {request: ends[request] for request in requests if ends[request] != 1} == {}
    return len(requests)


async def nothing_is_queued(connection: Connection) -> None:
    while True:
        stream = await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}")
        consumers = (await connection.api(f"CONSUMER.LIST.{STREAM_REQUESTS}"))["consumers"]
        if stream["state"]["messages"] + sum(consumer["num_ack_pending"] for consumer in consumers) == 0:
            return
        await asyncio.sleep(0.1)


async def kill_each(deployment: Deployment) -> None:
    async with Load(deployment).running() as load:
        for _ in range(ROUNDS):
            await kill_servers(deployment, load)
            for name in (*list(deployment.edges)[:NUM_OF_A_KIND], *list(deployment.workers)[:NUM_OF_A_KIND]):
                await kill_process(deployment, load, name)
    print(
        f"{load.num_answers} answers equal, {load.num_broken} broken connections,"
        f" refusals {dict(load.refusals)}, {await check_journals(deployment)} journals with one end each"
    )


def test_each_process_is_killed_and_service_goes_on(deployment: Deployment) -> None:
    asyncio.run(kill_each(deployment))


def test_up_runs_on_a_cluster(deployment: Deployment) -> None:
    with running(deployment.folder / "up", *deployment.options) as stack:
        assert stack.run["nats"] == {"pid": None, "url": deployment.cluster.url}
        answer = fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 5})
        assert answer["usage"]["completion_tokens"] <= 5
    assert stack.process is not None
    assert stack.process.returncode == 0
