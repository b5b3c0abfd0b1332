import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from broker.connection import BrokerConfig, Connection
from broker.lease import Lease
from broker.pull import PullLoop
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS
from broker.work_queue import WorkQueue
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.support.requests import make_request
from tests.support.waiting import until

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("short_pulls")]


@pytest.fixture
def short_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulls that end soon, since stopping waits for their end."""
    monkeypatch.setattr("broker.pull._WAITING", b'{"batch":1,"expires":300000000,"idle_heartbeat":100000000}')
    monkeypatch.setattr("broker.pull.EXPIRES_S", 0.3)


class _Taker:
    """A worker with `slots` places that keeps every lease until told otherwise."""

    def __init__(self, broker: Broker, slots: int, worker_id: str = "w1") -> None:
        self.slots = slots
        self.leases: list[Lease] = []
        self._news = asyncio.Event()
        self.loop = PullLoop(
            broker.worker, "echo", worker_id=worker_id, on_lease=self._take, credit=lambda: self.credit
        )

    @property
    def credit(self) -> int:
        return self.slots - len(self.leases)

    @property
    def ids(self) -> list[str]:
        return [lease.ref().request_id for lease in self.leases]

    def _take(self, lease: Lease) -> None:
        self.leases.append(lease)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()


async def _submit(broker: Broker, request_id: str, priority: PriorityClass = PriorityClass.NORMAL) -> None:
    await WorkQueue(broker.edge).submit(make_request(request_id, priority=priority))


async def test_a_backlog_is_taken_highest_class_first_and_by_arrival_within_a_class(broker: Broker) -> None:
    for priority in reversed(PriorityClass):
        for number in range(2):
            await _submit(broker, f"{priority}{number}", priority)
    taker = _Taker(broker, slots=5)
    await taker.loop.start()
    await taker.until(lambda: len(taker.leases) == 5)
    assert taker.ids == ["high0", "high1", "normal0", "normal1", "low0"]
    await taker.loop.stop()


async def test_requests_of_any_class_wake_a_waiting_worker(broker: Broker) -> None:
    taker = _Taker(broker, slots=4)
    await taker.loop.start()
    for number, priority in enumerate(reversed(PriorityClass), start=1):
        await _submit(broker, f"r{number}", priority)
        await taker.until(lambda number=number: len(taker.leases) == number)  # type: ignore[misc]
    await taker.loop.stop()


async def test_no_more_is_held_than_there_is_room_for(broker: Broker) -> None:
    taker = _Taker(broker, slots=1)
    await taker.loop.start()
    for priority in PriorityClass:
        await _submit(broker, priority.value, priority)
    await taker.until(lambda: bool(taker.leases))
    for _ in range(3):
        await taker.leases[0].ack()
        taker.leases.clear()
        taker.loop.wake()
        await taker.until(lambda: bool(taker.leases))
        assert len(taker.leases) == 1
    await taker.loop.stop()


async def test_surplus_goes_to_another_worker_at_once(broker: Broker) -> None:
    taker = _Taker(broker, slots=1, worker_id="w1")
    await taker.loop.start()
    other_connection = await broker.server.connect(Role.WORKER)
    other = _Taker(broker, slots=8, worker_id="w2")
    other.loop = PullLoop(other_connection, "echo", worker_id="w2", on_lease=other._take, credit=lambda: other.credit)
    await other.loop.start()
    for priority in PriorityClass:
        await _submit(broker, priority.value, priority)
    await asyncio.gather(
        other.until(lambda: len(other.leases) + len(taker.leases) == 4),
    )
    assert len(taker.leases) <= 1
    await asyncio.gather(taker.loop.stop(), other.loop.stop())


async def test_without_credit_nothing_is_asked(broker: Broker) -> None:
    taker = _Taker(broker, slots=0)
    await taker.loop.start()
    before = broker.worker.raw.stats["out_msgs"]
    for _ in range(20):
        taker.loop.wake()
        await asyncio.sleep(0)
    assert broker.worker.raw.stats["out_msgs"] == before
    await _submit(broker, "r1")
    taker.slots = 1
    taker.loop.wake()
    await taker.until(lambda: taker.ids == ["r1"])
    await taker.loop.stop()


async def test_pulls_are_renewed_when_they_expire(broker: Broker) -> None:
    taker = _Taker(broker, slots=1)
    await taker.loop.start()
    await asyncio.sleep(0.7)
    await _submit(broker, "r1")
    await taker.until(lambda: taker.ids == ["r1"])
    await taker.loop.stop()


async def test_it_goes_on_after_kills_of_the_broker(broker: Broker) -> None:
    taker = _Taker(broker, slots=10)
    await taker.loop.start()
    for number in range(2):
        await broker.server.restart()
        await _submit(broker, f"r{number}")
        await taker.until(lambda number=number: f"r{number}" in taker.ids)  # type: ignore[misc]
    await taker.loop.stop()


async def test_a_server_that_stands_still_is_noticed(broker: Broker) -> None:
    if broker.server.pid is None:
        pytest.skip("the server runs in a container: its process cannot be stopped from here")
    taker = _Taker(broker, slots=1)
    await taker.loop.start()
    os.kill(broker.server.pid, signal.SIGSTOP)
    await asyncio.sleep(0.3)
    os.kill(broker.server.pid, signal.SIGCONT)
    await _submit(broker, "r1")
    await taker.until(lambda: taker.ids == ["r1"])
    await taker.loop.stop()


async def test_what_waited_while_this_process_stood_still_is_left_to_others(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease has run out; to claim it would take it from the worker that runs it by now."""
    monkeypatch.setattr("broker.pull._STILL_S", 1.0)
    taker = _Taker(broker, slots=2)
    await taker.loop.start()
    await _submit(broker, "warm")
    await taker.until(lambda: taker.ids == ["warm"])
    await asyncio.sleep(0.05)  # waiting pulls are open again

    def submit_elsewhere() -> None:
        async def run() -> None:
            config = BrokerConfig(broker.server.url, Role.EDGE, "other", broker.server.credentials)
            edge = await Connection.open(config)
            await WorkQueue(edge).submit(make_request("caught"))
            await edge.close()

        asyncio.run(run())
        time.sleep(1.2)

    thread = threading.Thread(target=submit_elsewhere)
    thread.start()
    thread.join()  # and with it our loop stands still
    await _submit(broker, "fresh")
    await taker.until(lambda: len(taker.leases) == 2)
    assert taker.ids == ["warm", "fresh"]
    assert taker.loop.stale == 1
    await taker.loop.stop()


async def test_it_waits_for_consumers_that_come_later(broker: Broker) -> None:
    await broker.topology.api(f"STREAM.DELETE.{STREAM_REQUESTS}")
    taker = _Taker(broker, slots=1)
    await taker.loop.start()
    await asyncio.sleep(0.1)
    await broker.apply()
    await _submit(broker, "r1")
    await taker.until(lambda: taker.ids == ["r1"])
    await taker.loop.stop()


async def test_a_consumer_deleted_under_a_pull_is_asked_again_when_it_is_back(broker: Broker) -> None:
    taker = _Taker(broker, slots=1)
    await taker.loop.start()
    await asyncio.sleep(0.05)
    await broker.topology.api(f"CONSUMER.DELETE.{STREAM_REQUESTS}.echo-normal-0")
    await broker.apply()
    await _submit(broker, "r1")
    await taker.until(lambda: taker.ids == ["r1"])
    await taker.loop.stop()


async def test_what_comes_while_stopping_goes_back(broker: Broker) -> None:
    taker = _Taker(broker, slots=4)
    await taker.loop.start()
    await _submit(broker, "warm", PriorityClass.HIGH)
    await taker.until(lambda: taker.ids == ["warm"])
    await asyncio.sleep(0.05)  # waiting pulls are open again
    stopping = asyncio.create_task(taker.loop.stop())
    await asyncio.sleep(0)
    await _submit(broker, "late")
    await stopping
    assert taker.ids == ["warm"]
    other = _Taker(broker, slots=1, worker_id="w2")
    await other.loop.start()
    await other.until(lambda: other.ids == ["late"])
    assert other.leases[0].num_delivered == 2
    await other.loop.stop()


async def test_a_delivery_whose_handler_fails_comes_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.pull._FAILED_HANDLER_DELAY_S", 0.05)
    taken: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    async def on_lease(lease: Lease) -> None:
        if lease.num_delivered == 1:
            raise RuntimeError("cannot take it")
        taken.set_result(lease)

    pull = PullLoop(broker.worker, "echo", worker_id="w1", on_lease=on_lease, credit=lambda: int(not taken.done()))
    await pull.start()
    await _submit(broker, "r1")
    assert (await taken).num_delivered == 2
    await pull.stop()


async def test_two_workers_share_a_burst_without_taking_a_request_twice(broker: Broker) -> None:
    second = await broker.server.connect(Role.WORKER)
    takers = [_Taker(broker, slots=30, worker_id="w1"), _Taker(broker, slots=30, worker_id="w2")]
    takers[1].loop = PullLoop(second, "echo", worker_id="w2", on_lease=takers[1]._take, credit=lambda: takers[1].credit)
    for taker in takers:
        await taker.loop.start()
    await asyncio.gather(*(_submit(broker, f"r{number}") for number in range(50)))
    await until(lambda: sum(len(taker.leases) for taker in takers) >= 50)
    ids = takers[0].ids + takers[1].ids
    assert sorted(ids) == sorted(f"r{number}" for number in range(50))
    assert all(taker.credit >= 0 for taker in takers)
    await asyncio.gather(*(taker.loop.stop() for taker in takers))
