import asyncio
import contextlib
from typing import Any

import pytest
from nats.aio.msg import Msg

from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.errors import BrokerTimeout
from broker.headers import RequestRef
from broker.journal import JournalHub
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_DLQ, STREAM_REQUESTS, STREAM_TOKENS, journal
from broker.work_queue import WorkQueue
from schemas.codec import decode_event, encode_event
from schemas.errors import ErrorCode
from schemas.events import Accepted, Cancelled, Delta, Failed, Finished, FinishReason, Started, Usage
from schemas.fold import Fold, fold
from tests.conftest import Broker
from tests.support.leases import take_lease
from tests.support.requests import make_request
from tests.support.waiting import until

pytestmark = pytest.mark.nats
_REF = RequestRef("e1", "r1")
_SUBJECTS = journal(*_REF)
_USAGE = Usage(2, 3)


async def _submit(broker: Broker) -> None:
    """Accepted and queued, as an edge does it."""
    request = make_request()
    accepted = Accepted("r1", "k_test", "completions", "echo", request.created, {}, "", None)
    await JournalHub(broker.edge, "e1").accept(accepted)
    await WorkQueue(broker.edge).submit(request)


async def _claim(
    broker: Broker, *, worker_id: str = "w1", fingerprint: str = "f", connection: Connection | None = None
) -> Claim:
    """A claim on the next delivery, not acquired yet."""
    connection = connection or broker.worker
    lease = await take_lease(connection)
    return Claim(connection, _REF, lease, worker_id=worker_id, fingerprint=fingerprint)


async def _next_claim(broker: Broker, before: Claim, **options: Any) -> Claim:
    """The delivery of `before` goes to another worker, while `before` knows nothing of it."""
    await WorkQueue(broker.edge).hand_back(before._lease.ack_subject)
    return await _claim(broker, **options)


async def _journal(broker: Broker) -> list[Any]:
    records = await read_records(broker.edge, STREAM_TOKENS, _SUBJECTS.all, is_complete=lambda _: True)
    return [decode_event(record.payload) for record in records]


async def _folded(broker: Broker) -> Fold:
    return fold(enumerate(await _journal(broker), start=1))


async def _num_queued(broker: Broker) -> int:
    messages: int = (await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]["messages"]
    return messages


def _forget_first_answer(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next request is carried out, but its answer never comes."""
    real = connection.request

    async def once(*arguments: Any, **options: Any) -> Msg:
        monkeypatch.setattr(connection, "request", real)
        await real(*arguments, **options)
        raise BrokerTimeout("the answer is lost")

    monkeypatch.setattr(connection, "request", once)


async def test_a_request_is_claimed_written_and_settled(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    assert await claim.acquire() is ClaimOutcome.FRESH
    await claim.progress(1, 2)
    await claim.delta([1], ["a"])
    await claim.delta([2], ["b"])
    assert await claim.checkpoint()
    assert claim.confirmed == 2
    assert await claim.finish(FinishReason.STOP, _USAGE, [3], ["c"])
    state = await _folded(broker)
    assert isinstance(state.terminal, Finished)
    assert (state.token_ids, state.text()) == ([1, 2, 3], "abc")
    assert state.terminal.token_ids == [1, 2, 3]
    assert await _num_queued(broker) == 0


async def test_the_claim_tells_where_to_hand_the_delivery_back(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker, worker_id="w7", fingerprint="weights")
    await claim.acquire()
    started = (await _journal(broker))[-1]
    assert started == Started(claim.run, "w7", claim._lease.ack_subject, "weights")


async def test_another_worker_continues_behind_the_accepted_prefix(broker: Broker) -> None:
    await _submit(broker)
    dead = await _claim(broker, fingerprint="old")
    await dead.acquire()
    await dead.delta([1, 2], ["a", "b"])
    assert await dead.checkpoint()
    await dead.delta([3], ["c"])  # unacked, yet stored
    claim = await _next_claim(broker, dead, fingerprint="new")
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    assert (claim.fold.token_ids, claim.confirmed) == ([1, 2, 3], 3)
    assert claim.previous_fingerprint == "old"
    await claim.delta([4], ["d"])
    assert await claim.finish(FinishReason.STOP, _USAGE, [], [])
    assert (await _folded(broker)).text() == "abcd"


async def test_a_zombie_is_fenced_and_touches_nothing(broker: Broker) -> None:
    await _submit(broker)
    zombie = await _claim(broker)
    await zombie.acquire()
    await zombie.delta([1], ["a"])
    assert await zombie.checkpoint()
    claim = await _next_claim(broker, zombie)
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    await zombie.delta([9], ["zombie"])
    assert not await zombie.checkpoint()
    assert zombie.is_fenced and not zombie.has_ended
    length = len(await _journal(broker))
    await zombie.delta([9], ["zombie"])
    assert not await zombie.checkpoint()
    assert not await zombie.finish(FinishReason.STOP, _USAGE, [9], ["zombie"])
    assert not await zombie.fail(ErrorCode.INTERNAL, "zombie")
    assert not await zombie.release()
    assert len(await _journal(broker)) == length
    assert await _num_queued(broker) == 1
    info = await broker.topology.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.echo-normal-0")
    assert (info["num_ack_pending"], info["num_pending"]) == (1, 0)
    assert await claim.checkpoint()
    assert await claim.finish(FinishReason.STOP, _USAGE, [2], ["b"])
    assert (await _folded(broker)).text() == "ab"


async def test_a_zombies_end_is_refused(broker: Broker) -> None:
    await _submit(broker)
    zombie = await _claim(broker)
    await zombie.acquire()
    claim = await _next_claim(broker, zombie)
    await claim.acquire()
    assert not await zombie.finish(FinishReason.STOP, _USAGE, [9], ["zombie"])
    assert await _num_queued(broker) == 1
    assert (await _folded(broker)).terminal is None


async def test_a_zombie_that_finished_first_settles_the_request(broker: Broker) -> None:
    await _submit(broker)
    first = await _claim(broker)
    await first.acquire()
    await WorkQueue(broker.edge).hand_back(first._lease.ack_subject)
    assert await first.finish(FinishReason.STOP, _USAGE, [1], ["a"])
    # The delivery was on its way to another one when the end was stored.
    await broker.edge.publish_acked(
        "inferflux.req.echo.normal.0", encode_event(Cancelled("x")), headers={"Ifx-Edge": "e1", "Ifx-Request-Id": "r1"}
    )
    second = await _claim(broker)
    assert await second.acquire() is ClaimOutcome.SETTLED
    assert (await _folded(broker)).text() == "a"


@pytest.mark.parametrize("end", [Cancelled("client left"), Failed(None, "deadline_exceeded", "too late", False)])
async def test_an_end_written_by_an_edge_stops_the_run(broker: Broker, end: Cancelled | Failed) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta([1], ["a"])
    await JournalHub(broker.edge, "e1").end("e1", "r1", end)
    assert not await claim.checkpoint()
    assert claim.has_ended
    assert not await claim.finish(FinishReason.STOP, _USAGE, [2], ["b"])
    assert (await _folded(broker)).terminal == end


async def test_a_request_cancelled_while_queued_is_only_settled(broker: Broker) -> None:
    await _submit(broker)
    await JournalHub(broker.edge, "e1").end("e1", "r1", Cancelled("client left"))
    claim = await _claim(broker)
    assert await claim.acquire() is ClaimOutcome.SETTLED


async def test_a_late_delivery_of_a_purged_journal_is_only_settled(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta([1], ["secret"])
    assert await claim.checkpoint()
    hub = JournalHub(broker.edge, "e1")
    await hub.purge("e1", "r1")
    assert not await claim.checkpoint()
    assert claim.has_ended
    late = await _next_claim(broker, claim)
    assert await late.acquire() is ClaimOutcome.SETTLED
    records = await read_records(broker.edge, STREAM_TOKENS, _SUBJECTS.all, is_complete=lambda _: True)
    assert [decode_event(record.payload) for record in records] == [Cancelled("purged")]


async def test_a_released_request_is_continued_and_counts_as_no_failure(broker: Broker) -> None:
    await _submit(broker)
    for number in range(5):
        claim = await _claim(broker)
        assert await claim.acquire() is (ClaimOutcome.CONTINUE if number else ClaimOutcome.FRESH)
        await claim.delta([number], [str(number)])
        assert await claim.release()
        assert not await claim.finish(FinishReason.STOP, _USAGE, [], [])
    assert (await _folded(broker)).text() == "01234"


async def test_a_request_that_kills_three_workers_is_put_aside(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    for _ in range(3):
        assert await claim.acquire() is ClaimOutcome.FRESH
        claim = await _next_claim(broker, claim)
    assert await claim.acquire() is ClaimOutcome.POISONED
    assert await claim.poison("kills workers")
    state = await _folded(broker)
    assert isinstance(state.terminal, Failed)
    assert (state.terminal.code, state.terminal.run) == ("poisoned", claim.run)
    assert await _num_queued(broker) == 0
    info = await broker.topology.api(f"STREAM.INFO.{STREAM_DLQ}")
    assert info["state"]["messages"] == 1
    message = (await broker.topology.api(f"STREAM.MSG.GET.{STREAM_DLQ}", {"seq": 1}))["message"]
    assert message["subject"] == "inferflux.dlq.echo.r1"


async def test_progress_between_deaths_keeps_a_request_from_the_dead_letters(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    for number in range(6):
        assert await claim.acquire() in (ClaimOutcome.FRESH, ClaimOutcome.CONTINUE)
        await claim.delta([number], ["x"])
        assert await claim.checkpoint()
        claim = await _next_claim(broker, claim)
    assert await claim.acquire() is ClaimOutcome.CONTINUE


async def test_a_journal_that_lost_its_beginning_is_expired(broker: Broker) -> None:
    await _submit(broker)
    dead = await _claim(broker)
    await dead.acquire()
    await dead.delta([1], ["a"])
    assert await dead.checkpoint()
    await dead.delta([2], ["b"])
    assert await dead.checkpoint()
    # What age and the byte cap do: the oldest records go.
    first = await read_records(broker.edge, STREAM_TOKENS, _SUBJECTS.ev, is_complete=lambda _: True)
    await broker.topology.api(f"STREAM.PURGE.{STREAM_TOKENS}", {"seq": first[1].seq})
    await broker.worker.publish_acked(_SUBJECTS.run, encode_event(Started("other", "w0", "x", "f")))
    claim = await _next_claim(broker, dead)
    assert await claim.acquire() is ClaimOutcome.EXPIRED
    assert await claim.fail(ErrorCode.JOURNAL_EXPIRED, "too old")
    assert await _num_queued(broker) == 0


async def test_lost_first_deltas_are_not_taken_for_an_expired_journal(broker: Broker) -> None:
    await _submit(broker)
    dead = await _claim(broker)
    await dead.acquire()
    await broker.worker.publish_acked(_SUBJECTS.ev, encode_event(Delta(dead.run, 5, [6], ["f"])))
    claim = await _next_claim(broker, dead)
    assert await claim.acquire() is ClaimOutcome.FRESH
    assert claim.token_ids == []


async def test_a_claim_whose_answer_was_lost_is_recognised(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    _forget_first_answer(broker.worker, monkeypatch)
    assert await claim.acquire() is ClaimOutcome.FRESH
    assert await claim.finish(FinishReason.STOP, _USAGE, [1], ["a"])
    assert sum(isinstance(event, Started) for event in await _journal(broker)) == 1


async def test_a_takeover_whose_answer_was_lost_is_recognised(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    await _submit(broker)
    dead = await _claim(broker)
    await dead.acquire()
    await dead.delta([1], ["a"])
    assert await dead.checkpoint()
    claim = await _next_claim(broker, dead)
    real = claim._claim

    async def claim_and_forget(last: int, deadline: float) -> bool:
        if last:
            _forget_first_answer(broker.worker, monkeypatch)
        return await real(last, deadline)

    monkeypatch.setattr(claim, "_claim", claim_and_forget)
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    assert claim.token_ids == [1]
    assert await claim.checkpoint()


async def test_a_hand_back_whose_answer_was_lost_is_recognised(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    real = claim._write

    async def write_and_forget(subject: str, *arguments: Any) -> bool:
        if subject == _SUBJECTS.run:
            _forget_first_answer(broker.worker, monkeypatch)
        return await real(subject, *arguments)

    monkeypatch.setattr(claim, "_write", write_and_forget)
    assert await claim.release()
    assert (await take_lease(broker.worker)).num_delivered == 2


async def test_an_end_whose_answer_was_lost_is_one_end(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    _forget_first_answer(broker.worker, monkeypatch)
    assert await claim.finish(FinishReason.STOP, _USAGE, [1], ["a"])
    assert (await _folded(broker)).token_ids == [1]
    assert await _num_queued(broker) == 0


async def test_of_many_that_claim_at_once_each_fences_the_one_before(broker: Broker) -> None:
    await _submit(broker)
    lease = await take_lease(broker.worker)
    connections = [await broker.server.connect(Role.WORKER) for _ in range(4)]
    claims = [
        Claim(connection, _REF, lease, worker_id=f"w{number}", fingerprint="f", poison_after=100)
        for number, connection in enumerate(connections)
    ]
    await asyncio.gather(*(claim.acquire() for claim in claims))
    ends = await asyncio.gather(
        *(claim.finish(FinishReason.STOP, _USAGE, [number], [str(number)]) for number, claim in enumerate(claims))
    )
    assert sum(ends) == 1
    state = await _folded(broker)
    assert state.token_ids == [ends.index(True)]


async def _has_ended(broker: Broker) -> bool:
    return (await _folded(broker)).terminal is not None


async def _is_queue_empty(broker: Broker) -> bool:
    return await _num_queued(broker) == 0


async def _settle_as_next_worker(broker: Broker) -> None:
    """Take what is delivered, find its end in the journal, acknowledge. Until cancelled."""
    while True:
        claim = await _claim(broker, worker_id="w2")
        assert await claim.acquire() is ClaimOutcome.SETTLED
        await claim._lease.ack()


async def _settled_by_anybody(broker: Broker, finishing: asyncio.Task[bool]) -> None:
    """The end is stored, then the request leaves the queue, by its own worker or by the next one."""
    await until(lambda: _has_ended(broker))
    beside = asyncio.create_task(_settle_as_next_worker(broker))
    assert await finishing
    await until(lambda: beside.done() or _is_queue_empty(broker))
    beside.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beside


async def test_the_end_is_written_through_a_kill_of_the_broker(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta([1], ["a"])
    await broker.server.kill()
    await claim.delta([2], ["b"])
    finishing = asyncio.create_task(claim.finish(FinishReason.STOP, _USAGE, [3], ["c"]))
    await asyncio.sleep(0)
    await broker.server.start()
    for connection in (broker.edge, broker.topology, broker.worker):
        assert await connection.wait_connected(10)
    # The server writes what it has delivered a moment later: it may have forgotten it, and then knows no ack of it.
    await _settled_by_anybody(broker, finishing)
    assert (await _folded(broker)).text() == "abc"


async def test_an_ack_of_a_delivery_that_the_broker_forgot_is_left_to_the_next_worker(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta([1], ["a"])
    await broker.topology.api(f"CONSUMER.DELETE.{STREAM_REQUESTS}.echo-normal-0")
    await broker.apply()
    finishing = asyncio.create_task(claim.finish(FinishReason.STOP, _USAGE, [2], ["b"]))
    await _settled_by_anybody(broker, finishing)
    assert (await _folded(broker)).text() == "ab"
    assert sum(isinstance(event, Finished) for event in await _journal(broker)) == 1


async def test_a_checkpoint_after_a_kill_brings_what_was_dropped(broker: Broker) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await broker.server.kill()
    await claim.delta([1, 2], ["a", "b"])
    await broker.server.start()
    assert await claim.checkpoint()
    assert (await _folded(broker)).text() == "ab"


async def test_an_answer_over_the_payload_limit_is_stored_in_pieces(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.claims.MAX_DELTA_TOKENS", 1000)
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    pieces = ["x" * 4000] * 2500
    assert sum(map(len, pieces)) > broker.worker.max_payload
    await claim.delta([0], [pieces[0]])
    assert await claim.finish(FinishReason.STOP, _USAGE, list(range(1, 2500)), pieces[1:])
    state = await _folded(broker)
    assert isinstance(state.terminal, Finished)
    assert state.token_ids == list(range(2500))
    assert len(state.text()) == 4000 * 2500


async def test_after_standing_still_for_longer_than_the_lease_nothing_is_said_before_a_checkpoint(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta([1], ["a"])
    monkeypatch.setattr(claim._lease, "_renewed_at", claim._lease.delivered_at - 60)
    await claim.delta([2], ["b"])
    await broker.worker.flush()
    assert (await _folded(broker)).token_ids == [1]
    assert await claim.checkpoint()
    assert not claim._lease.is_overdue
    assert (await _folded(broker)).token_ids == [1, 2]


async def test_records_that_are_not_ours_do_not_hinder_a_claim(broker: Broker) -> None:
    await _submit(broker)
    await broker.worker.publish_acked(_SUBJECTS.run, b"junk")
    await broker.worker.publish_acked(_SUBJECTS.ev, b"\x01junk")
    claim = await _claim(broker)
    assert await claim.acquire() is ClaimOutcome.FRESH
    assert await claim.finish(FinishReason.STOP, _USAGE, [1], ["a"])


async def test_ids_that_are_no_subject_tokens_are_refused(broker: Broker) -> None:
    await _submit(broker)
    lease = await take_lease(broker.worker)
    with pytest.raises(ValueError):
        Claim(broker.worker, RequestRef("e1", "r.>"), lease, worker_id="w1", fingerprint="f")


async def _fill_the_journal(broker: Broker) -> None:
    """Write more than the stream holds, so that it drops all that was there: a full one drops its oldest records."""
    name = f"STREAM.INFO.{STREAM_TOKENS}"
    config = (await broker.topology.api(name))["config"]
    await broker.topology.api(f"STREAM.UPDATE.{STREAM_TOKENS}", {**config, "max_bytes": 64 * 1024})
    before = (await broker.topology.api(name))["state"]["last_seq"]
    while (await broker.topology.api(name))["state"]["first_seq"] <= before:
        await broker.edge.publish_acked("inferflux.tok.e2.other.head", bytes(16 * 1024))


async def test_a_run_whose_journal_is_dropped_writes_it_again_and_goes_on(broker: Broker) -> None:
    hub = JournalHub(broker.edge, "e1")
    await hub.start()
    view = hub.open("r1")
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta([1, 2], ["a", "b"])
    assert await claim.checkpoint()
    await _fill_the_journal(broker)
    assert await _journal(broker) == []
    await claim.delta([3], ["c"])
    assert await claim.checkpoint()
    assert (await _folded(broker)).text() == "abc"
    await _fill_the_journal(broker)
    assert await claim.finish(FinishReason.STOP, _USAGE, [4], ["d"])
    while view.fold.terminal is None:
        assert await view.changed(view.fold.length, 10)
    assert (view.fold.token_ids, view.fold.text()) == ([1, 2, 3, 4], "abcd")
    assert sum(isinstance(event, Finished) for event in await _journal(broker)) == 1
    assert await _num_queued(broker) == 0
    await hub.close()


async def test_what_was_written_again_is_continued_by_another_worker(broker: Broker) -> None:
    await _submit(broker)
    dead = await _claim(broker)
    await dead.acquire()
    await dead.delta([1, 2], ["a", "b"])
    assert await dead.checkpoint()
    await _fill_the_journal(broker)
    assert await dead.checkpoint()
    claim = await _next_claim(broker, dead)
    assert await claim.acquire() is ClaimOutcome.CONTINUE
    assert claim.token_ids == [1, 2]
    assert not await dead.checkpoint()


async def test_a_journal_longer_than_a_delta_is_written_again_in_pieces(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.claims.MAX_DELTA_TOKENS", 2)
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await claim.delta(range(5), list("abcde"))
    assert await claim.checkpoint()
    await _fill_the_journal(broker)
    assert await claim.release()
    assert (await _folded(broker)).text() == "abcde"


async def test_a_dropped_journal_that_another_one_began_again_fences(broker: Broker) -> None:
    await _submit(broker)
    first = await _claim(broker)
    await first.acquire()
    await _fill_the_journal(broker)
    second = await _next_claim(broker, first)
    assert await second.acquire() is ClaimOutcome.FRESH
    assert not await first.checkpoint()
    assert await second.checkpoint()


async def test_who_stood_still_does_not_write_a_dropped_journal_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _submit(broker)
    claim = await _claim(broker)
    await claim.acquire()
    await _fill_the_journal(broker)
    monkeypatch.setattr(claim._lease, "_renewed_at", claim._lease.delivered_at - 60)
    assert not await claim.checkpoint()
    assert await _journal(broker) == []
    assert await _num_queued(broker) == 1
