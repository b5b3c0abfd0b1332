"""The protocol on three servers: copies, leaders that change, replicas that lag."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.claims import Claim, ClaimOutcome
from broker.connection import BrokerConfig, Connection
from broker.credentials import Login, find_login
from broker.errors import BrokerError
from broker.headers import RequestRef
from broker.journal import JournalHub, JournalView
from broker.records import Record, read_records
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, journal
from broker.topology import Topology
from broker.work_queue import WorkQueue
from schemas.codec import decode_event
from schemas.control import ModelCard
from schemas.events import Accepted, Failed, Finished, FinishReason, Usage
from schemas.fold import fold
from tests.support.cluster import Cluster
from tests.support.counts import full_or
from tests.support.leases import take_lease
from tests.support.requests import make_request
from tests.support.waiting import until

pytestmark = [pytest.mark.nats, pytest.mark.slow]
_CARD = ModelCard(id="echo", source="echo", backend="echo", created=1)
_DISK = 1 << 30
_USAGE = Usage(1, 1)
_RACES = full_or(200, reduced=20)
# The servers take half a minute to make further copies.
_KILLS_AFTER_COPYING = full_or(1, reduced=0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers with the topology applied. Who kills one starts it again."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()

    async def apply() -> None:
        async with connections(cluster) as connect:
            await Topology(await connect(Role.TOPOLOGY), replicas=3, max_file_bytes=_DISK).apply([_CARD], 4)
            await until(lambda: asyncio.to_thread(cluster.is_healthy))

    try:
        asyncio.run(apply())
        yield cluster
    finally:
        cluster.close()


Connect = Callable[..., Awaitable[Connection]]


@asynccontextmanager
async def connections(cluster: Cluster) -> AsyncIterator[Connect]:
    """Opens connections, to all servers unless told otherwise, and closes them at the end."""
    opened: list[Connection] = []

    async def connect(role: Role, url: str | None = None) -> Connection:
        connection = await Connection.open(BrokerConfig(url or cluster.url, role, "test", cluster.credentials))
        opened.append(connection)
        return connection

    try:
        yield connect
    finally:
        for connection in opened:
            await connection.close()


async def submit(edge: Connection, hub: JournalHub, request_id: str) -> JournalView:
    view = hub.open(request_id)
    request = make_request(request_id)
    await hub.accept(Accepted(request_id, "k_test", "completions", "echo", request.created, {}, "", None))
    await WorkQueue(edge).submit(request)
    return view


async def claim_next(worker: Connection, request_id: str, worker_id: str) -> Claim:
    """A claim on the next delivery, not acquired yet."""
    return Claim(worker, RequestRef("e1", request_id), await take_lease(worker), worker_id=worker_id, fingerprint="f")


async def whole_journal(edge: Connection, hub: JournalHub, request_id: str) -> list[Record]:
    """All that was acknowledged until now. A replica may lag, but it has all that comes before what it has."""
    mark = await hub.accept(Accepted(request_id, "k_test", "completions", "echo", 0, {}, "", None))
    subject = journal("e1", request_id).all
    return await read_records(
        edge, STREAM_TOKENS, subject, is_complete=lambda found: any(record.seq == mark for record in found)
    )


async def ended(view: JournalView) -> None:
    while view.fold.terminal is None:
        await view.changed(view.fold.length, None)


async def is_empty(topology: Connection) -> bool:
    """Not while the stream has no leader to ask."""
    try:
        info = await topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
    except BrokerError:
        return False
    return bool(info["state"]["messages"] == 0)


async def test_of_a_sleeper_that_wakes_and_its_successor_one_ends_the_request(cluster: Cluster) -> None:
    """Each through a server of its own, at the same moment: what was read live is what the journal says."""
    ends = {"first": 0, "second": 0}
    async with connections(cluster) as connect:
        edge, topology = await connect(Role.EDGE), await connect(Role.TOPOLOGY)
        one, two = [await connect(Role.WORKER, cluster.nodes[name].url) for name in ("n1", "n2")]
        hub = JournalHub(edge, "e1")
        await hub.start()
        for number in range(_RACES):
            request_id = f"race{number}"
            view = await submit(edge, hub, request_id)
            first = await claim_next(one, request_id, "w1")
            assert await first.acquire() is ClaimOutcome.FRESH
            await first.delta([1, 2], ["a", "b"])
            if number % 2:
                assert await first.checkpoint()
            await WorkQueue(edge).hand_back(first._lease.ack_subject)
            second = await claim_next(two, request_id, "w2")

            async def take_over(second: Claim = second) -> bool:
                if await second.acquire() is ClaimOutcome.SETTLED:
                    await second._lease.ack()
                    return False
                length = len(second.token_ids)
                return await second.finish(FinishReason.LENGTH, _USAGE, [7] * (5 - length), ["z"] * (5 - length))

            async def wake(first: Claim = first, late_s: float = number % 10 / 2000) -> bool:
                await asyncio.sleep(late_s)  # so that either is sometimes the faster one
                await first.delta([3], ["c"])
                return await first.finish(FinishReason.LENGTH, _USAGE, [4, 5], ["d", "e"])

            outcomes = await asyncio.gather(wake(), take_over())
            await ended(view)
            ends["first"] += outcomes[0]
            ends["second"] += outcomes[1]
            records = await whole_journal(edge, hub, request_id)
            events = [decode_event(record.payload) for record in records]
            stored = fold((record.seq, event) for record, event in zip(records, events, strict=True))
            assert outcomes.count(True) == 1
            assert sum(isinstance(event, Finished | Failed) for event in events) == 1
            assert (view.fold.token_ids, view.fold.terminal) == (stored.token_ids, stored.terminal)
            assert view.fold.text()[:2] == "ab" and len(view.fold.token_ids) == 5
            view.close()
        await until(lambda: is_empty(topology))
        await hub.close()
    print(ends)


async def test_of_many_that_claim_at_once_each_fences_the_one_before(cluster: Cluster) -> None:
    async with connections(cluster) as connect:
        edge = await connect(Role.EDGE)
        workers = [await connect(Role.WORKER, node.url) for node in cluster.nodes.values() for _ in range(2)]
        hub = JournalHub(edge, "e1")
        await hub.start()
        for number in range(_RACES // 5):
            view = await submit(edge, hub, f"crowd{number}")
            lease = await take_lease(workers[0])
            ref = RequestRef("e1", f"crowd{number}")
            claims = [
                Claim(worker, ref, lease, worker_id=f"w{place}", fingerprint="f", poison_after=100)
                for place, worker in enumerate(workers)
            ]
            await asyncio.gather(*(claim.acquire() for claim in claims))
            ends = await asyncio.gather(
                *(claim.finish(FinishReason.STOP, _USAGE, [place], ["x"]) for place, claim in enumerate(claims))
            )
            assert ends.count(True) == 1
            await ended(view)
            assert view.fold.token_ids == [ends.index(True)]
            view.close()
        await hub.close()


async def test_the_death_of_a_leader_delays_and_loses_nothing(cluster: Cluster) -> None:
    """The edge knows one server by its address, and finds the others when that one dies."""
    leader = await asyncio.to_thread(cluster.wait_leader, STREAM_TOKENS)
    login = find_login(cluster.credentials, Role.EDGE)
    assert isinstance(login, Login)
    url = leader.url.replace("nats://", f"nats://{login.user}:{login.password}@")
    async with connections(cluster) as connect:
        edge = await Connection.open(BrokerConfig(url, Role.EDGE, "test"))
        worker, topology = await connect(Role.WORKER), await connect(Role.TOPOLOGY)
        hub = JournalHub(edge, "e1")
        await hub.start()
        view = await submit(edge, hub, "bereft")
        claim = await claim_next(worker, "bereft", "w1")
        assert await claim.acquire() is ClaimOutcome.FRESH
        await claim.delta([1], ["a"])
        assert await claim.checkpoint()
        leader.kill()
        try:
            await claim.delta([2], ["b"])  # lost, or not
            assert await claim.finish(FinishReason.STOP, _USAGE, [3], ["c"])
            await ended(view)
            assert view.fold.text() == "abc"
            await until(lambda: is_empty(topology))
            # What nobody holds any more is handed back and answered as well.
            view = await submit(edge, hub, "bereft2")
            dead = await claim_next(worker, "bereft2", "w1")
            assert await dead.acquire() is ClaimOutcome.FRESH
            await WorkQueue(edge).hand_back(dead._lease.ack_subject)
            heir = await claim_next(worker, "bereft2", "w2")
            assert await heir.acquire() is ClaimOutcome.FRESH
            assert await heir.finish(FinishReason.STOP, _USAGE, [1], ["x"])
            await ended(view)
        finally:
            leader.start()
            await until(lambda: asyncio.to_thread(cluster.is_healthy))
            await hub.close()
            await edge.close()


async def test_one_copy_becomes_three_while_a_request_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.nodes["n1"].start()
        async with connections(cluster) as connect:
            opening = asyncio.create_task(connect(Role.TOPOLOGY))
            await until(lambda: "waiting for JetStream" in caplog.text)
            cluster.nodes["n2"].start()
            cluster.nodes["n3"].start()
            topology, edge, worker = await opening, await connect(Role.EDGE), await connect(Role.WORKER)
            assert sum("waiting for JetStream" in message for message in caplog.messages) == 1
            await Topology(topology, max_file_bytes=_DISK).apply([_CARD], 4)
            hub = JournalHub(edge, "e1")
            await hub.start()
            running = await submit(edge, hub, "running")
            claim = await claim_next(worker, "running", "w1")
            assert await claim.acquire() is ClaimOutcome.FRESH
            await claim.delta([1], ["a"])
            waiting = await submit(edge, hub, "waiting")
            on_cluster = Topology(topology, replicas=3, max_file_bytes=_DISK)
            await on_cluster.apply([_CARD], 4)
            assert await on_cluster.diff([_CARD], 4) == []
            for _ in range(_KILLS_AFTER_COPYING):
                await until(lambda: has_three_copies(topology))
                (await asyncio.to_thread(cluster.wait_leader, STREAM_REQUESTS)).kill()
            assert await claim.finish(FinishReason.STOP, _USAGE, [2], ["b"])
            await ended(running)
            assert running.fold.text() == "ab"
            second = await claim_next(worker, "waiting", "w1")
            assert await second.acquire() is ClaimOutcome.FRESH
            assert await second.finish(FinishReason.STOP, _USAGE, [1], ["x"])
            await ended(waiting)
            await until(lambda: is_empty(topology))
            await hub.close()
    finally:
        cluster.close()


async def has_three_copies(topology: Connection) -> bool:
    """Of every stream and consumer. The servers take their time to make them."""
    streams = (await topology.api("STREAM.LIST"))["streams"]
    consumers = (await topology.api(f"CONSUMER.LIST.{STREAM_REQUESTS}"))["consumers"]
    groups = [each["cluster"] for each in (*streams, *consumers)]
    return all(
        sum(replica["current"] for replica in group.get("replicas", ())) == 2 and "desired" not in group
        for group in groups
    )
