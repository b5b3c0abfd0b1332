"""Requests that are not journaled: the edge has their tokens, the journal has claims and ends."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.msg import Msg

from broker import live_claim, live_link
from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.errors import BrokerUnavailable
from broker.journal import JournalHub, JournalView
from broker.lease import Lease
from broker.live_claim import LiveClaim, claim_for
from broker.records import get_record, read_records
from broker.roles import Role
from broker.subjects import STREAM_DLQ, STREAM_REQUESTS, STREAM_TOKENS, journal, live_subject
from broker.work_queue import WorkQueue
from schemas.codec import decode_event, encode_event
from schemas.events import Accepted, Advanced, Cancelled, Delta, Failed, Finished, FinishReason, Started, Usage
from tests.conftest import Broker
from tests.support.leases import take_lease
from tests.support.requests import make_request
from tests.support.waiting import until

pytestmark = pytest.mark.nats


class EdgeSide:
    """An edge's hub and queue."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.hub = JournalHub(broker.edge, "e1")
        self.queue = WorkQueue(broker.edge)

    async def submit(self, request_id: str = "r1") -> JournalView:
        request = make_request(request_id, journaled=False)
        view = self.hub.open(request_id, journaled=False)
        options = {"journal": "off"}
        await self.hub.accept(Accepted(request_id, "k_test", "completions", "echo", 1, options, "", None))
        await self.queue.submit(request)
        return view

    async def claim(self, *, connection: Connection | None = None, worker_id: str = "w1", model: str = "f") -> Claim:
        """A claim on the next delivery, not acquired yet."""
        connection = connection or self.broker.worker
        lease = await take_lease(connection)
        return claim_for(connection, await lease.request(), lease, worker_id=worker_id, fingerprint=model)

    async def next_claim(self, before: Claim, **options: Any) -> Claim:
        """The delivery of `before` goes to another worker, while `before` knows nothing of it."""
        await self.queue.hand_back(before._lease.ack_subject)
        return await self.claim(**options)

    async def events(self, request_id: str = "r1") -> list[Any]:
        records = await read_records(
            self.broker.edge, STREAM_TOKENS, journal("e1", request_id).all, is_complete=lambda _: True
        )
        return [decode_event(record.payload) for record in records]

    async def num_queued(self) -> int:
        count: int = (await self.broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]["messages"]
        return count


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[EdgeSide]:
    side = EdgeSide(broker)
    await side.hub.start()
    yield side
    await side.hub.close()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_link, "GRACE_S", 0.2)


def lose_what_is_sent(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(delta: Delta) -> None:
        return

    monkeypatch.setattr(claim, "_send", lost)


async def tokens(view: JournalView, length: int) -> None:
    """Wait until the edge has at least `length` tokens."""
    while view.fold.length < length:
        await view.changed(view.fold.length, None)


async def end_of(view: JournalView) -> Any:
    while view.fold.terminal is None:
        await view.changed(view.fold.length, None)
    return view.fold.terminal


async def finish(claim: Claim, token_ids: list[int], pieces: list[str]) -> bool:
    usage = Usage(1, len(claim.token_ids) + len(token_ids))
    return await claim.finish(FinishReason.STOP, usage, token_ids, pieces)


async def test_the_edge_has_the_text_and_no_stream_has_any_of_it(broker: Broker, edge: EdgeSide) -> None:
    view = await edge.submit()
    claim = await edge.claim()
    assert isinstance(claim, LiveClaim)
    assert await claim.acquire() is ClaimOutcome.FRESH
    await claim.progress(1, 2)
    await claim.delta([1], ["sec"])
    await claim.delta([2], ["ret"])
    assert await claim.checkpoint()
    assert claim.confirmed == 2
    assert view.fold.text() == "secret"
    assert await finish(claim, [3], ["ive"])
    assert await end_of(view) == Finished(claim.run, "stop", Usage(1, 3), [], [])
    assert view.fold.text() == "secretive"
    assert await edge.num_queued() == 0
    events = await edge.events()
    assert Advanced(claim.run, 2) in events
    assert not any(isinstance(event, Delta) for event in events)
    records = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.>", is_complete=bool)
    assert not any(piece in record.payload for record in records for piece in (b"sec", b"ret", b"ive"))


async def test_what_gets_lost_comes_with_the_next_checkpoint(edge: EdgeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    view = await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    await claim.delta([1], ["a"])
    with monkeypatch.context() as lossy:
        lose_what_is_sent(claim, lossy)
        await claim.delta([2], ["b"])
    await claim.delta([3], ["c"])
    await tokens(view, 1)
    assert view.fold.text() == "a"
    assert await claim.checkpoint()
    assert view.fold.text() == "abc"


async def test_the_end_comes_behind_the_last_token(edge: EdgeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    view = await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    lose_what_is_sent(claim, monkeypatch)
    monkeypatch.setattr("broker.live_claim.MAX_DELTA_TOKENS", 7)
    await claim.delta(list(range(30)), [f"{index} " for index in range(30)])
    assert await finish(claim, [30], ["30"])
    assert isinstance(await end_of(view), Finished)
    assert view.fold.text() == " ".join(map(str, range(31)))


async def test_another_worker_continues_behind_what_the_edge_has(edge: EdgeSide) -> None:
    view = await edge.submit()
    dead = await edge.claim(model="old")
    await dead.acquire()
    await dead.delta([1, 2], ["a", "b"])
    await tokens(view, 2)
    claim = await edge.next_claim(dead, worker_id="w2", model="new")
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    assert (claim.token_ids, claim.pieces, claim.confirmed) == ([1, 2], ["a", "b"], 2)
    assert claim.previous_fingerprint == "old"
    await claim.delta([3], ["c"])
    assert await finish(claim, [], [])
    await end_of(view)
    assert view.fold.text() == "abc"


async def test_a_long_text_is_taken_over_whole(edge: EdgeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.live_view._MAX_TOLD_TOKENS", 10)
    await edge.submit()
    dead = await edge.claim()
    await dead.acquire()
    await dead.delta(list(range(95)), ["x"] * 95)
    assert await dead.checkpoint()
    claim = await edge.next_claim(dead)
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    assert claim.token_ids == list(range(95))


async def test_a_zombie_is_fenced_and_not_heard(edge: EdgeSide) -> None:
    view = await edge.submit()
    zombie = await edge.claim()
    await zombie.acquire()
    await zombie.delta([1], ["a"])
    assert await zombie.checkpoint()
    claim = await edge.next_claim(zombie)
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    await zombie.delta([9], ["zombie"])
    await edge.broker.worker.flush()
    assert not await zombie.checkpoint()
    assert zombie.is_fenced and not zombie.has_ended
    assert not await finish(zombie, [9], ["zombie"])
    assert await edge.num_queued() == 1
    assert await finish(claim, [2], ["b"])
    await end_of(view)
    assert view.fold.text() == "ab"


async def test_a_released_request_is_continued(edge: EdgeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    view = await edge.submit()
    for number in range(5):
        claim = await edge.claim()
        assert await claim.acquire() is (ClaimOutcome.CONTINUE if number else ClaimOutcome.FRESH)
        lose_what_is_sent(claim, monkeypatch)
        await claim.delta([number], [str(number)])
        assert await claim.release()
    assert view.fold.text() == "01234"


async def test_a_cancelled_request_stops_the_run(edge: EdgeSide) -> None:
    view = await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    await claim.delta([1], ["a"])
    await edge.hub.end("e1", "r1", Cancelled("client left"))
    assert not await claim.checkpoint()
    assert claim.has_ended and not claim.is_unheard
    assert await end_of(view) == Cancelled("client left")


async def assert_unheard(edge: EdgeSide, claim: Claim) -> None:
    """The request has ended, with a reason that lets it be done again, and has left the queue."""
    assert claim.is_unheard
    failed = (await edge.events())[-1]
    assert isinstance(failed, Failed)
    assert (failed.run, failed.code, failed.retryable) == (claim.run, "broker_unavailable", True)
    assert await edge.num_queued() == 0


@pytest.mark.usefixtures("short_grace")
async def test_a_run_ends_when_its_edge_is_gone(edge: EdgeSide) -> None:
    await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    await claim.delta([1], ["a"])
    assert await claim.checkpoint()
    await edge.hub.close()
    assert not await claim.checkpoint()
    await assert_unheard(edge, claim)
    assert not await finish(claim, [2], ["b"])


@pytest.mark.usefixtures("short_grace")
async def test_an_edge_that_is_gone_at_the_end_is_not_waited_for(edge: EdgeSide) -> None:
    await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    await edge.hub.close()
    assert not await finish(claim, [1], ["a"])
    await assert_unheard(edge, claim)


@pytest.mark.usefixtures("short_grace")
async def test_nothing_is_taken_over_for_an_edge_that_is_gone(edge: EdgeSide) -> None:
    await edge.submit()
    dead = await edge.claim()
    await dead.acquire()
    await edge.hub.close()
    claim = await edge.next_claim(dead)
    assert await claim.acquire() is ClaimOutcome.SETTLED
    await assert_unheard(edge, claim)


async def test_an_edge_that_follows_no_longer_says_so_at_once(edge: EdgeSide) -> None:
    view = await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    view.close()
    assert not await claim.checkpoint()
    await assert_unheard(edge, claim)


async def test_an_edge_that_stands_still_costs_neither_lease_nor_text(edge: EdgeSide, broker: Broker) -> None:
    view = await edge.submit()
    claim = await edge.claim()
    await claim.acquire()
    listening = edge.hub._listening
    assert listening is not None
    await listening.unsubscribe()

    async def stands_still(message: Msg) -> None:
        return

    stalled = await broker.edge.subscribe(live_subject("e1", "*"), stands_still)
    await claim.delta([1], ["a"])
    claim._lease._renewed_at -= 10
    with pytest.raises(BrokerUnavailable):
        await claim.checkpoint()
    assert not claim._lease.needs_renewal
    finishing = asyncio.create_task(finish(claim, [2], ["b"]))
    await asyncio.sleep(1.2)  # longer than one attempt
    edge.hub._listening = await broker.edge.subscribe(live_subject("e1", "*"), edge.hub._on_live)
    await stalled.unsubscribe()
    assert await finishing
    await end_of(view)
    assert view.fold.text() == "ab"


async def test_a_request_that_kills_three_workers_is_put_aside_without_its_prompt(
    edge: EdgeSide, broker: Broker
) -> None:
    await edge.submit()
    claim = await edge.claim()
    for _ in range(3):
        assert await claim.acquire() is ClaimOutcome.FRESH
        claim = await edge.next_claim(claim)
    assert await claim.acquire() is ClaimOutcome.POISONED
    assert await claim.poison("kills workers")
    assert await edge.num_queued() == 0
    letter = await get_record(broker.topology, STREAM_DLQ, {"seq": 1}, 1.0)
    assert letter is not None
    assert letter.payload == b""
    message = (await broker.topology.api(f"STREAM.MSG.GET.{STREAM_DLQ}", {"seq": 1}))["message"]
    headers = base64.b64decode(message["hdrs"])
    assert b"Ifx-Request-Id: r1" in headers and b"Ifx-Journal: off" in headers


async def test_what_the_edge_got_between_deaths_is_progress(edge: EdgeSide) -> None:
    """No checkpoint was written: only the edge knows that each run came further."""
    view = await edge.submit()
    claim = await edge.claim()
    for number in range(8):
        assert await claim.acquire() is (ClaimOutcome.CONTINUE if number else ClaimOutcome.FRESH)
        await claim.delta([number], ["x"])
        await tokens(view, number + 1)
        claim = await edge.next_claim(claim)
    num_more = 0
    while (outcome := await claim.acquire()) is ClaimOutcome.CONTINUE:
        num_more += 1
        claim = await edge.next_claim(claim)
    assert outcome is ClaimOutcome.POISONED
    assert num_more == 4  # the first of them brought the news of the last progress


async def test_progress_that_nobody_could_record_is_progress(edge: EdgeSide, broker: Broker) -> None:
    """Two workers died between their claim and their first word."""
    view = await edge.submit()
    first = await edge.claim()
    await first.acquire()
    await first.delta([1], ["a"])
    await tokens(view, 1)
    for number in range(2):
        dead = Started(f"run{number}", f"dead{number}", "$JS.ACK.gone", "f")
        await broker.worker.publish_acked(journal("e1", "r1").run, encode_event(dead))
    claim = await edge.next_claim(first)
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    assert claim.fold.claims_without_progress == 3


async def test_nothing_is_taken_over_before_the_edge_has_read_of_the_claim(
    edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it goes on hearing the worker before, and what it hears may go to the client."""
    view = await edge.submit()
    first = await edge.claim()
    await first.acquire()
    await first.delta([1], ["a"])
    await tokens(view, 1)
    held: list[tuple[Any, ...]] = []
    take = edge.hub._reader._on_record
    monkeypatch.setattr(edge.hub._reader, "_on_record", lambda *record: held.append(record))
    claim = await edge.next_claim(first)
    acquiring = asyncio.create_task(claim.acquire())
    await until(lambda: bool(held))
    await first.delta([2], ["b"])
    await tokens(view, 2)
    assert not acquiring.done()
    monkeypatch.undo()
    for record in held:
        take(*record)
    assert await acquiring is ClaimOutcome.CONTINUE
    assert claim.token_ids == [1, 2]


async def test_an_answer_is_written_to_nobody_who_did_not_ask_as_a_worker(edge: EdgeSide, broker: Broker) -> None:
    await edge.submit()
    for reply in ("inferflux.req.echo.high.0", "$JS.ACK.INFERFLUX_REQUESTS.echo-high-0.1.1.1.1.0"):
        delta = encode_event(Delta("A", 0, [], []))
        await broker.worker.publish(live_subject("e1", "r1"), delta, reply=reply)
        await broker.worker.publish(live_subject("e1", "unknown"), delta, reply=reply)
    claim = await edge.claim()
    await claim.acquire()
    assert await claim.checkpoint()  # what came before has been handled
    assert await edge.num_queued() == 1
    assert broker.edge.num_refused == 0


class Client:
    """Follows a view as an edge does for its client: what was sent is never taken back."""

    def __init__(self, view: JournalView) -> None:
        self.view = view
        self.sent: list[int] = []

    async def read(self) -> None:
        while self.view.fold.terminal is None:
            await self.view.changed(len(self.sent), None)
            assert self.view.fold.token_ids[: len(self.sent)] == self.sent
            self.sent = list(self.view.fold.token_ids)


async def serve(worker: Connection, num_tokens: int) -> None:
    lease = await take_lease(worker)
    request = await lease.request()
    claim = claim_for(worker, request, lease, worker_id="w1", fingerprint="f")
    assert await claim.acquire() is ClaimOutcome.FRESH
    salt = int(request.request_id[1:]) * 1000
    for index in range(num_tokens):
        await claim.delta([salt + index], [f"{index} "])
        if index % 50 == 49:
            await checkpoint(claim)
        await asyncio.sleep(0.003)
    assert await finish(claim, [], [])


async def checkpoint(claim: Claim) -> None:
    """As a session does it: an edge that is not back yet gets everything with the next one."""
    try:
        assert await claim.checkpoint()
    except BrokerUnavailable:
        assert not claim.is_unheard


async def test_live_streams_survive_kills_of_the_broker_without_a_wrong_token(broker: Broker, edge: EdgeSide) -> None:
    num_requests, num_tokens = 8, 200
    clients = [Client(await edge.submit(f"r{number}")) for number in range(num_requests)]
    reading = [asyncio.create_task(client.read()) for client in clients]
    serving = []
    for _ in range(num_requests):
        connection = await broker.server.connect(Role.WORKER)
        serving.append(asyncio.create_task(serve(connection, num_tokens)))
    for _ in range(2):
        await asyncio.sleep(0.2)
        await broker.server.restart()
    await asyncio.gather(*serving, *reading)
    for number, client in enumerate(clients):
        assert client.sent == [number * 1000 + index for index in range(num_tokens)]
        assert isinstance(client.view.fold.terminal, Finished)


async def test_a_takeover_race_never_takes_back_what_a_client_was_sent(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old worker wakes while the new one claims; whoever wins, there is one text and one end."""
    monkeypatch.setattr(live_claim, "_PASS_ON_S", 0.05)  # how long the one that lost waits to be confirmed
    other = await broker.server.connect(Role.WORKER)
    wins = {"old": 0, "new": 0}
    for number in range(40):
        request_id = f"r{number}"
        client = Client(await edge.submit(request_id))
        reading = asyncio.create_task(client.read())
        old = await edge.claim(worker_id="old")
        await old.acquire()
        await old.delta([0], ["0"])
        assert await old.checkpoint()
        new = await edge.next_claim(old, connection=other, worker_id="new")
        is_old, is_new = await asyncio.gather(go_on(old, 100, number), take_over(new, 200, 40 - number))
        await reading
        assert is_old != is_new
        wins["old" if is_old else "new"] += 1
        winner = old if is_old else new
        assert client.sent == winner.token_ids
        events = await edge.events(request_id)
        assert sum(isinstance(event, Finished) for event in events) == 1
        assert sum(isinstance(event, Started) for event in events) == 2
        client.view.close()
    assert sum(wins.values()) == 40


async def go_on(claim: Claim, salt: int, pauses: int) -> bool:
    for index in range(3):
        await claim.delta([salt + index], ["x"])
        await dither(pauses)
    return await finish(claim, [], [])


async def take_over(claim: Claim, salt: int, pauses: int) -> bool:
    await dither(pauses)
    try:
        outcome = await claim.acquire()
    except BrokerUnavailable:
        return False
    return outcome is not ClaimOutcome.SETTLED and await go_on(claim, salt, 0)


async def dither(pauses: int) -> None:
    """Shift against the other worker by turns of the loop, which are tens of microseconds."""
    for _ in range(pauses):
        await asyncio.sleep(0)


async def test_requests_that_are_journaled_stay_so(broker: Broker) -> None:
    await WorkQueue(broker.edge).submit(make_request())
    lease: Lease = await take_lease(broker.worker)
    request = await lease.request()
    assert not isinstance(claim_for(broker.worker, request, lease, worker_id="w", fingerprint="f"), LiveClaim)
