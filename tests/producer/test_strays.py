"""Deliveries whose worker ended before it had claimed them. Nobody else's are touched."""

import asyncio
import math
from dataclasses import replace

import pytest

from broker.lease import Lease
from broker.roles import Role
from broker.work_queue import Look, QueueDepth
from producer.edge.background import Background
from producer.edge.calls import Part
from producer.edge.retry_after import Line
from producer.edge.strays import Strays
from schemas.events import Progress, Started
from schemas.fold import Fold
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.producer.conftest import chat, put_model, running_edge, running_worker
from tests.producer.scripted_worker import ScriptedWorker
from tests.support.leases import handed_back, take_lease
from tests.support.waiting import until

LINE = Line("echo", PriorityClass.NORMAL)


class Hesitant(ScriptedWorker):
    """Claims nothing before it may."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.may_claim = asyncio.Event()
        self.leases: list[Lease] = []
        self.num_asked = 0

    async def in_hand(self) -> set[int]:
        self.num_asked += 1
        return await super().in_hand()

    async def _run(self, lease: Lease) -> None:
        self.leases.append(lease)
        await self.may_claim.wait()
        await super()._run(lease)


@pytest.mark.nats
async def test_what_a_dead_worker_had_not_claimed_goes_to_another(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    dying = await broker.server.connect(Role.WORKER, "dying")
    async with running_edge(broker) as edge, handed_back(broker) as seqs:
        asking = asyncio.create_task(edge.post(chat()))
        lease = await take_lease(dying)
        await dying.close()
        async with running_worker(broker.worker) as heir:
            assert (await asking).status_code == 200
            assert [run.lease.num_delivered for run in heir.runs] == [2]
    assert seqs == [lease.stream_seq]


@pytest.mark.nats
async def test_what_was_claimed_before_and_not_since_goes_to_another(broker: Broker) -> None:
    """The second worker dies as the first one did, only earlier."""
    await put_model(broker)
    first, second = [await broker.server.connect(Role.WORKER, name) for name in ("first", "second")]

    async def is_cut_off(_: object) -> None:
        await asyncio.Event().wait()

    doomed = ScriptedWorker(first, is_cut_off, worker_id="w1")
    await doomed.start()
    async with running_edge(broker) as edge, handed_back(broker) as seqs:
        await until(lambda: edge_serves(edge))
        asking = asyncio.create_task(edge.post(chat()))
        await doomed.started.wait()
        await doomed.die()
        lease = await take_lease(second)
        await second.close()
        async with running_worker(broker.worker, worker_id="w3") as heir:
            assert (await asking).status_code == 200
            assert [run.lease.num_delivered for run in heir.runs] == [3]
    assert seqs == [lease.stream_seq] * 2
    await doomed.close()


@pytest.mark.nats
async def test_what_a_living_worker_has_stays_with_it(broker: Broker) -> None:
    await put_model(broker)
    hesitant = Hesitant(broker.worker, worker_id="w1")
    await hesitant.start()
    async with running_edge(broker) as edge, handed_back(broker) as seqs:
        await until(lambda: edge_serves(edge))
        asking = asyncio.create_task(edge.post(chat()))
        await until(lambda: len(hesitant.leases) == 1)
        async with running_worker(await broker.server.connect(Role.WORKER), worker_id="w2") as idle:
            await until(lambda: hesitant.num_asked >= 3)
            hesitant.may_claim.set()
            assert (await asking).status_code == 200
            assert not idle.runs
    assert seqs == []
    await hesitant.close()


async def edge_serves(edge: object) -> bool:
    return (await edge.client.get("/readyz")).status_code == 200  # type: ignore[attr-defined, no-any-return]


class Silent:
    """A view of a journal that says nothing more."""

    def __init__(self, last_activity: float = 0.0) -> None:
        self.fold = Fold()
        self.progress: Progress | None = None
        self.last_activity = last_activity

    async def changed(self, length: int, timeout_s: float | None) -> bool:
        raise AssertionError("nobody waits")

    def close(self) -> None:
        pass


class Place:
    """Strays over a queue that looks as it is told to, whose workers have nothing in hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("producer.edge.strays._EVERY_S", 0.0)
        self.look = Look(10.0, QueueDepth(0, 0), 0, 0)
        self.held: set[int] = set()
        self.live_since = 0.0
        self.asked: list[set[int]] = []
        self.handed_back: list[int] = []
        self._background = Background()
        self._strays = Strays(self._look, self._unheld, self._hand_back, lambda: self.live_since, self._background)

    async def sees(self, *parts: Part, delivered_seq: int, num_asking: int = 0) -> None:
        """One look at the class."""
        self.look = self.look._replace(
            asked_at=self.look.asked_at + 1, delivered_seq=delivered_seq, num_asking=num_asking
        )
        self._strays.look_for({LINE: parts})
        await self._background.close(math.inf)

    async def _look(self, model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        return self.look

    async def _unheld(self, model: str, seqs: object) -> set[int]:
        self.asked.append(set(seqs))  # type: ignore[call-overload]
        return self.asked[-1] - self.held

    async def _hand_back(self, model: str, priority: PriorityClass, seq: int, look: Look) -> None:
        assert look is self.look
        self.handed_back.append(seq)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def part(seq: int | None, **changes: object) -> Part:
    return replace(Part(f"r{seq}", "e1", Silent(), seq), **changes)  # type: ignore[arg-type]


async def test_only_what_was_delivered_a_look_ago_is_asked_about(place: Place) -> None:
    parts = [part(1), part(2), part(3)]
    await place.sees(*parts, delivered_seq=1, num_asking=1)
    assert place.asked == []
    await place.sees(*parts, delivered_seq=2, num_asking=1)
    assert place.asked == [{1}]
    assert place.handed_back == [1]


async def test_what_may_wait_in_the_queue_is_left_there(place: Place) -> None:
    for _ in range(3):  # nobody asks for anything: given back, it waits
        await place.sees(part(1), delivered_seq=4)
    assert place.asked == []
    await place.sees(part(1), delivered_seq=5)  # it would have come before a new one
    assert place.handed_back == [1]


async def test_it_is_handed_back_once_and_again_only_after_another_delivery_could_be_seen(place: Place) -> None:
    stray = part(1)
    for _ in range(2):
        await place.sees(stray, delivered_seq=1, num_asking=1)
    assert place.handed_back == [1]
    assert stray.handed_back_at > place.look.asked_at  # by the real clock
    await place.sees(stray, delivered_seq=1, num_asking=1)
    assert place.handed_back == [1]


async def test_what_somebody_has_or_has_claimed_is_left_alone(place: Place) -> None:
    place.held = {1}
    claimed = part(2)
    claimed.view.fold.feed(Started("run", "w1", "", "f"))
    for _ in range(2):
        await place.sees(part(1), claimed, delivered_seq=2, num_asking=1)
    assert place.asked and place.handed_back == []


async def test_after_a_reconnection_the_workers_get_a_moment(place: Place) -> None:
    place.live_since = place.look.asked_at + 2.5
    for _ in range(4):
        await place.sees(part(1), delivered_seq=1, num_asking=1)
    assert place.asked == []
    await place.sees(part(1), delivered_seq=1, num_asking=1)
    assert place.handed_back == [1]


async def test_the_place_of_another_edges_request_is_known_from_its_earlier_claim(place: Place) -> None:
    started = Started("run", "w1", "$JS.ACK.INFERFLUX_REQUESTS.echo-normal-0.1.7.9.1.0", "f")
    known, unknown = part(None, started=started), part(None)
    for _ in range(2):
        await place.sees(known, unknown, delivered_seq=9, num_asking=1)
    assert place.handed_back == [7]
