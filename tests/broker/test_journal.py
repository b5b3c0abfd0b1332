import asyncio

import pytest

from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.headers import RequestRef
from broker.journal import PURGED, JournalHub, JournalView
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS, journal
from broker.work_queue import WorkQueue
from broker.worker_control import subscribe_cancels
from schemas.codec import decode_event, encode_event
from schemas.events import Accepted, Cancelled, Delta, Event, Finished, FinishReason, Progress, Released, Started, Usage
from tests.conftest import Broker
from tests.support.leases import take_lease
from tests.support.requests import make_request

pytestmark = pytest.mark.nats


def _accepted(request_id: str = "r1") -> Accepted:
    return Accepted(request_id, "k_test", "completions", "echo", 1, {}, "", None)


async def _write(connection: Connection, event: Event, request_id: str = "r1", edge: str = "e1") -> None:
    subjects = journal(edge, request_id)
    subject = subjects.run if isinstance(event, (Started, Released, Cancelled)) else subjects.ev
    await connection.publish_acked(subject, encode_event(event))


async def _hub(broker: Broker, edge_id: str = "e1") -> JournalHub:
    hub = JournalHub(broker.edge, edge_id)
    await hub.start()
    return hub


async def test_an_open_request_is_folded_as_it_is_written(broker: Broker) -> None:
    hub = await _hub(broker)
    assert hub.is_live
    view = hub.open("r1")
    await hub.accept(_accepted())
    await _write(broker.worker, Started("A", "w1", "ack", "f"))
    assert await view.changed(0, None)  # the claim is news
    assert view.fold.run == "A"
    await _write(broker.worker, Delta("A", 0, [1], ["a"]))
    assert await view.changed(0, None)
    assert view.fold.text() == "a"
    await _write(broker.worker, Finished("A", "stop", Usage(1, 2), [1, 2], ["a", "b"]))
    assert await view.changed(1, None)
    assert await view.changed(99, None)  # ended: never waits again
    assert view.fold.text() == "ab"
    assert view.fold.accepted == _accepted()
    view.close()
    await hub.close()


async def test_progress_and_hand_backs_are_news_once(broker: Broker) -> None:
    hub = await _hub(broker)
    view = hub.open("r1")
    await _write(broker.worker, Started("A", "w1", "ack", "f"))
    assert await view.changed(0, None)
    assert not await view.changed(0, 0)
    await _write(broker.worker, Progress("A", 5, 10))
    assert await view.changed(0, None)
    assert view.progress == Progress("A", 5, 10)
    assert not await view.changed(0, 0)
    await _write(broker.worker, Released("A"))
    assert await view.changed(0, None)
    assert view.fold.run is None
    await _write(broker.worker, Progress("A", 6, 10))  # of a run that is over
    await _write(broker.worker, Started("B", "w1", "ack", "f"))
    assert await view.changed(0, None)
    assert view.progress == Progress("A", 5, 10)
    await hub.close()


async def test_several_may_wait_and_one_may_leave(broker: Broker) -> None:
    hub = await _hub(broker)
    view = hub.open("r1")
    waiting = [asyncio.create_task(view.changed(0, None)) for _ in range(3)]
    impatient = asyncio.create_task(view.changed(0, 0.01))
    assert not await impatient
    waiting[0].cancel()
    await _write(broker.worker, Started("A", "w1", "ack", "f"))
    assert await asyncio.gather(*waiting[1:]) == [True, True]
    await hub.close()


async def test_waiting_ends_after_the_time_given(broker: Broker) -> None:
    hub = await _hub(broker)
    assert not await hub.open("r1").changed(0, 0.01)
    await hub.close()


async def test_requests_that_nobody_opened_and_junk_are_ignored(broker: Broker) -> None:
    hub = await _hub(broker)
    view = hub.open("r1")
    await _write(broker.worker, Started("X", "w1", "ack", "f"), "unknown")
    for _ in range(3):
        await broker.worker.publish_acked(journal("e1", "r1").ev, b"\x01\xc1junk")
    await _write(broker.worker, Started("A", "w1", "ack", "f"))
    assert await view.changed(0, None)
    assert (view.fold.run, hub.undecodable) == ("A", 3)
    view.close()
    reopened = hub.open("r1")
    view.close()  # of the old view: the new one stays
    await _write(broker.worker, Started("B", "w1", "ack", "f"))
    assert await reopened.changed(0, None)
    assert view.fold.run == "A"
    await hub.close()


async def test_edges_read_their_own_requests_only(broker: Broker) -> None:
    first, second = await _hub(broker, "e1"), await _hub(broker, "e2")
    mine, theirs = first.open("r1"), second.open("r1")
    await _write(broker.worker, Started("A", "w1", "ack", "f"), edge="e1")
    assert await mine.changed(0, None)
    assert theirs.fold.run is None
    await first.close()
    await second.close()


async def test_the_end_is_stored_before_the_worker_hears_of_it(broker: Broker) -> None:
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await subscribe_cancels(broker.worker, heard.set_result)
    hub = await _hub(broker)
    view = hub.open("r1")
    await hub.end("e1", "r1", Cancelled("client left"))
    assert await heard == "r1"
    records = await read_records(broker.edge, STREAM_TOKENS, journal("e1", "r1").all, is_complete=bool)
    assert [decode_event(record.payload) for record in records] == [Cancelled("client left")]
    assert await view.changed(0, None)
    assert view.fold.terminal == Cancelled("client left")
    await hub.close()


async def test_a_purged_journal_leaves_a_mark_without_text_and_others_alone(broker: Broker) -> None:
    hub = await _hub(broker)
    for request_id in ("r1", "r2"):
        await hub.accept(_accepted(request_id))
        await _write(broker.worker, Started("A", "w1", "ack", "f"), request_id)
        await _write(broker.worker, Finished("A", "stop", Usage(1, 1), [1], ["secret"]), request_id)
    await hub.purge("e1", "r1")
    left = await read_records(broker.edge, STREAM_TOKENS, journal("e1", "r1").all, is_complete=bool)
    assert [decode_event(record.payload) for record in left] == [Cancelled(PURGED)]
    other = await read_records(broker.edge, STREAM_TOKENS, journal("e1", "r2").all, is_complete=bool)
    assert len(other) == 3
    await hub.purge("e1", "r1")
    await hub.close()


class _Client:
    """Follows a view as an edge does for its client: what was sent is never taken back."""

    def __init__(self, view: JournalView) -> None:
        self.view = view
        self.sent: list[int] = []

    async def read(self) -> None:
        while self.view.fold.terminal is None:
            await self.view.changed(len(self.sent), None)
            assert self.view.fold.token_ids[: len(self.sent)] == self.sent
            self.sent = list(self.view.fold.token_ids)


async def _serve(worker: Connection, num_tokens: int) -> None:
    lease = await take_lease(worker)
    ref = lease.ref()
    claim = Claim(worker, ref, lease, worker_id="w1", fingerprint="f")
    assert await claim.acquire() is ClaimOutcome.FRESH
    salt = int(ref.request_id[1:]) * 1000
    for index in range(num_tokens):
        await claim.delta([salt + index], [f"{index} "])
        if index % 50 == 49:
            assert await claim.checkpoint()
        await asyncio.sleep(0.003)
    assert await claim.finish(FinishReason.STOP, Usage(1, num_tokens), [], [])


async def test_live_streams_survive_kills_of_the_broker_without_a_wrong_token(broker: Broker) -> None:
    num_requests, num_tokens = 8, 200
    hub = await _hub(broker)
    queue = WorkQueue(broker.edge)
    clients = []
    for number in range(num_requests):
        view = hub.open(f"r{number}")
        await hub.accept(_accepted(f"r{number}"))
        await queue.submit(make_request(f"r{number}"))
        clients.append(_Client(view))
    reading = [asyncio.create_task(client.read()) for client in clients]
    serving = []
    for _ in range(num_requests):
        connection = await broker.server.connect(Role.WORKER)
        serving.append(asyncio.create_task(_serve(connection, num_tokens)))
    for _ in range(2):
        await asyncio.sleep(0.2)
        await broker.server.restart()
    await asyncio.gather(*serving, *reading)
    for number, client in enumerate(clients):
        assert client.sent == [number * 1000 + index for index in range(num_tokens)]
        terminal = client.view.fold.terminal
        assert isinstance(terminal, Finished)
    assert hub.resets >= 1
    await hub.close()


async def test_a_takeover_race_never_takes_back_what_a_client_was_sent(broker: Broker) -> None:
    """The old worker wakes while the new one claims; whoever wins, every reader sees one text and one end."""
    hub = await _hub(broker)
    queue = WorkQueue(broker.edge)
    other = await broker.server.connect(Role.WORKER)
    wins = {"old": 0, "new": 0}
    for number in range(40):
        request_id = f"r{number}"
        client = _Client(hub.open(request_id))
        reading = asyncio.create_task(client.read())
        await hub.accept(_accepted(request_id))
        await queue.submit(make_request(request_id))
        lease = await take_lease(broker.worker)
        old = Claim(broker.worker, RequestRef("e1", request_id), lease, worker_id="old", fingerprint="f")
        await old.acquire()
        await old.delta([0], ["0"])
        assert await old.checkpoint()
        await queue.hand_back(lease.ack_subject)
        lease = await take_lease(other)
        new = Claim(other, RequestRef("e1", request_id), lease, worker_id="new", fingerprint="f")
        is_old, is_new = await asyncio.gather(_go_on(old, 100, number), _take_over(new, 200, 40 - number))
        await reading
        assert is_old != is_new
        wins["old" if is_old else "new"] += 1
        stored = await read_records(
            broker.edge, STREAM_TOKENS, journal("e1", request_id).all, is_complete=lambda found: len(found) > 3
        )
        ends = [event for event in (decode_event(record.payload) for record in stored) if isinstance(event, Finished)]
        assert client.sent in [end.token_ids for end in ends]
        client.view.close()
    assert sum(wins.values()) == 40
    await hub.close()


async def _go_on(claim: Claim, salt: int, pauses: int) -> bool:
    for index in range(3):
        await claim.delta([salt + index], ["x"])
        await _dither(pauses)
    return await claim.finish(FinishReason.STOP, Usage(1, 4), [], [])


async def _take_over(claim: Claim, salt: int, pauses: int) -> bool:
    await _dither(pauses)
    outcome = await claim.acquire()
    if outcome is ClaimOutcome.SETTLED:
        return False
    return await _go_on(claim, salt, 0)


async def _dither(pauses: int) -> None:
    """Shift against the other worker by turns of the loop, which are tens of microseconds."""
    for _ in range(pauses):
        await asyncio.sleep(0)
