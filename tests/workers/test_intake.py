"""What a worker does with a delivery, whatever happens to it on the way. Real broker, real engine."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from broker.claims import Claim, ClaimOutcome
from broker.lease import Lease
from broker.records import Record, get_record, read_records
from broker.subjects import (
    STREAM_DLQ,
    STREAM_REQUESTS,
    STREAM_TOKENS,
    cancel_subject,
    consumer_name,
    journal,
    request_subject,
)
from broker.transitions import Transitions
from broker.work_queue import MAX_INLINE_BYTES
from schemas.codec import decode_event, encode_event
from schemas.events import Cancelled, Delta, Failed, Finished, Released, Started
from schemas.requests import ChatMessage, ChatPrompt, GenerateRequest, PriorityClass, SamplingParams
from tests.conftest import Broker
from tests.support.waiting import until
from tests.workers.harness import EDGE, SLOW, EdgeSide, edge_side, end_of, intake, tokens
from workers.engine.engine import Engine
from workers.engine.messages import Emission
from workers.intake import Intake
from workers.runners.base import Batch, ForwardResult, RunnerError
from workers.runners.echo import EchoRunner
from workers.session import Session


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[EdgeSide]:
    async with edge_side(broker) as side:
        yield side


def lose_device(runner: EchoRunner, batch: Batch) -> ForwardResult:
    raise RunnerError("device lost")


async def undisturbed(edge: EdgeSide, **changes: object) -> str:
    """The text of `edge.request(**changes)` when nothing happens to it."""
    async with intake(edge.broker, "w0", source="echo:random") as _:
        return await end_of(await edge.submit(edge.request(**changes)))


async def test_its_gauges_are_there_once_it_is_open(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.intake.TICK_S", 3600)
    async with intake(broker, pull=False) as worker:
        value = worker._metrics.registry.get_sample_value
        assert value("inferflux_kv_pages", {"model": "echo", "state": "used"}) == 0
        assert value("inferflux_worker_slots", {"model": "echo", "state": "free"}) == worker.slots


async def test_a_request_is_answered_and_leaves_the_queue(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, source="echo:repeat") as worker:
        prompt = ChatPrompt((ChatMessage("user", "say this"),))
        view = await edge.submit(edge.request(prompt=prompt, sampling=SamplingParams(seed=1)))
        assert await end_of(view) == "say this"
        await edge.queue_is_empty()
        assert worker.credit == worker.slots
    finished = view.fold.terminal
    assert isinstance(finished, Finished)
    assert "".join(finished.pieces) == "say this"
    assert finished.usage.completion_tokens == len(finished.token_ids)


async def test_the_client_leaves_in_mid_sentence(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker) as worker:
        request = edge.request(max_tokens=1000)
        view = await edge.submit(request)
        await tokens(view, 5)
        await edge.hub.end(EDGE, request.request_id, Cancelled("client_gone"))
        await edge.queue_is_empty()
        assert worker.credit == worker.slots


async def test_a_cancellation_whose_message_was_lost_is_found_in_the_journal(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker) as worker:
        request = edge.request(max_tokens=1000)
        view = await edge.submit(request)
        await tokens(view, 5)
        run = journal(EDGE, request.request_id).run
        await broker.edge.publish_acked(run, encode_event(Cancelled("client_gone")))
        await edge.queue_is_empty()
        assert worker.credit == worker.slots


async def test_an_answer_that_comes_after_its_cancellation_leaves_the_queue_at_once(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = []
    take = Intake._take
    monkeypatch.setattr(Intake, "_take", lambda self, lease: (deliveries.append(lease), take(self, lease))[1])
    async with intake(broker) as worker:
        request = edge.request(max_tokens=20)
        view = await edge.submit(request)
        await tokens(view, 1)
        await broker.edge.publish_acked(journal(EDGE, request.request_id).run, encode_event(Cancelled("client_gone")))
        await edge.queue_is_empty()
        await until(lambda: worker.credit == worker.slots)
    assert len(deliveries) == 1  # not left to its lease, and found ended by the next delivery


async def test_a_cancel_message_without_a_record_ends_nothing(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge)
    async with intake(broker):
        request = edge.request()
        view = await edge.submit(request)
        await tokens(view, 5)
        await broker.edge.publish(cancel_subject(request.request_id), b"")
        assert await end_of(view) == expected


async def test_a_drained_worker_hands_back_and_the_next_one_goes_on(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge)
    async with intake(broker, "w1"):
        view = await edge.submit(edge.request())
        await tokens(view, 10)
    assert view.fold.terminal is None
    async with intake(broker, "w2"):
        assert await end_of(view) == expected
        await edge.queue_is_empty()
    records = await read_records(broker.worker, STREAM_TOKENS, journal(EDGE, "r1").all, is_complete=bool)
    events = [decode_event(record.payload) for record in records]
    assert [event.worker for event in events if isinstance(event, Started)] == ["w1", "w2"]
    assert any(isinstance(event, Released) for event in events)
    second = next(n for n, event in enumerate(events) if isinstance(event, Started) and event.worker == "w2")
    first_delta = next(event for event in events[second:] if isinstance(event, Delta))
    assert first_delta.index >= 10  # continued, not generated again


async def test_a_worker_that_lost_its_request_falls_silent(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge)
    async with intake(broker, "w1") as first:
        view = await edge.submit(edge.request())
        await tokens(view, 5)
        started = view.fold.started
        assert started is not None
        async with intake(broker, "w2") as second:
            await edge.queue.hand_back(started.ack_subject)  # w1 is believed dead, and is not
            assert await end_of(view) == expected
            await edge.queue_is_empty()
            await until(lambda: first.credit == first.slots and second.credit == second.slots)
    records = await read_records(broker.worker, STREAM_TOKENS, journal(EDGE, "r1").ev, is_complete=bool)
    events = [decode_event(record.payload) for record in records]
    assert sum(isinstance(event, Finished) for event in events) == 1


async def test_an_end_found_on_two_ways_at_once_is_told_once(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    note = Transitions.note

    def listen(self: Transitions, request_id: str, event: str, **numbers: float | str | None) -> None:
        told.append(event)
        note(self, request_id, event, **numbers)

    monkeypatch.setattr(Transitions, "note", listen)
    async with intake(broker) as worker:
        request = edge.request(max_tokens=1000)
        view = await edge.submit(request)
        await tokens(view, 5)
        await broker.edge.publish_acked(journal(EDGE, request.request_id).run, encode_event(Cancelled("client_gone")))
        await asyncio.gather(worker.save_all(), worker.save_all())  # a timer, and a reconnection
        await edge.queue_is_empty()
    assert told == ["started", "fenced"]


async def test_an_expired_request_is_never_started(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = []
    monkeypatch.setattr(Engine, "submit", lambda self, request: submitted.append(request))
    async with intake(broker):
        view = await edge.submit(edge.request(deadline_ms=int(time.time() * 1000) - 1))
        await end_of(view)
        await edge.queue_is_empty()
    assert isinstance(view.fold.terminal, Failed)
    assert view.fold.terminal.code == "deadline_exceeded"
    assert submitted == []


async def test_a_deadline_holds_without_an_edge(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else ends it here: this edge side watches no deadlines, as one that is dead."""
    monkeypatch.setattr("workers.session.DEADLINE_GRACE_S", 0.2)
    async with intake(broker) as worker:
        now = int(time.time() * 1000)
        late = await edge.submit(edge.request(max_tokens=1000, deadline_ms=now + 300))
        other = await edge.submit(edge.request())
        await end_of(late)
        assert isinstance(late.fold.terminal, Failed)
        assert (late.fold.terminal.code, late.fold.terminal.run) == ("deadline_exceeded", late.fold.run)
        assert 0 < late.fold.length < 1000
        await end_of(other)
        assert isinstance(other.fold.terminal, Finished)
        await edge.queue_is_empty()
        await until(lambda: worker.credit == worker.slots)


async def test_a_deadline_passes_before_the_first_token_without_an_edge(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.session.DEADLINE_GRACE_S", 0.2)
    async with intake(broker, source="echo:random?prefill_rate=100") as worker:
        view = await edge.submit(edge.request("x" * 5000, deadline_ms=int(time.time() * 1000) + 300))
        await end_of(view)
        assert isinstance(view.fold.terminal, Failed)
        assert view.fold.terminal.code == "deadline_exceeded"
        await edge.queue_is_empty()
        await until(lambda: worker.credit == worker.slots)


async def test_a_body_that_is_no_request_fails_by_its_headers(broker: Broker, edge: EdgeSide) -> None:
    view = edge.hub.open("odd")
    async with intake(broker):
        headers = {"Ifx-Request-Id": "odd", "Ifx-Edge": EDGE}
        await broker.edge.publish_acked(
            request_subject("echo", PriorityClass.NORMAL), b'{"request_id": 5}', headers=headers
        )
        await end_of(view)
        await edge.queue_is_empty()
    assert isinstance(view.fold.terminal, Failed)
    assert "cannot be read" in view.fold.terminal.message


async def test_a_body_that_is_no_request_is_answered_also_after_deaths(broker: Broker, edge: EdgeSide) -> None:
    view = edge.hub.open("odd")
    for number in range(3):
        dead = Started(f"run{number}", f"dead{number}", "$JS.ACK.gone", "x")
        await broker.worker.publish_acked(journal(EDGE, "odd").run, encode_event(dead))
    async with intake(broker):
        headers = {"Ifx-Request-Id": "odd", "Ifx-Edge": EDGE}
        subject = request_subject("echo", PriorityClass.NORMAL)
        await broker.edge.publish_acked(subject, b"\xff", headers=headers)
        await edge.queue_is_empty()
    await end_of(view)
    assert isinstance(view.fold.terminal, Failed)


async def test_a_body_that_the_broker_has_lost_is_not_the_clients_mistake(broker: Broker, edge: EdgeSide) -> None:
    request = edge.request("x" * MAX_INLINE_BYTES)
    view = await edge.submit(request)
    await edge.queue.release_body(request.request_id)
    async with intake(broker):
        await end_of(view)
        await edge.queue_is_empty()
    failed = view.fold.terminal
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("internal", True)  # sent again, it brings its body again


async def test_a_body_that_names_nobody_is_taken_out_of_the_queue(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker):
        await broker.edge.publish_acked(request_subject("echo", PriorityClass.NORMAL), b"\xff")
        await edge.queue_is_empty()


async def test_a_prompt_that_does_not_fit_is_the_clients_mistake(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker):
        view = await edge.submit(edge.request("x" * 20_000))
        await end_of(view)
        await edge.queue_is_empty()
    assert isinstance(view.fold.terminal, Failed)
    assert view.fold.terminal.code == "context_length_exceeded"
    assert view.fold.terminal.param == "prompt"


async def test_no_more_is_taken_than_can_run_and_higher_classes_come_first(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    gate.set()
    forward = EchoRunner.forward

    def forward_when_open(runner: EchoRunner, batch: Batch) -> ForwardResult:
        gate.wait()
        return forward(runner, batch)

    monkeypatch.setattr(EchoRunner, "forward", forward_when_open)
    await broker.apply(fleet_slots=2)
    async with intake(broker, slots=2) as worker:
        running = [await edge.submit(edge.request(max_tokens=20)) for _ in range(2)]
        for view in running:
            await tokens(view, 1)
        gate.clear()
        low = await edge.submit(edge.request(max_tokens=20, priority=PriorityClass.LOW))
        high = await edge.submit(edge.request(max_tokens=20, priority=PriorityClass.HIGH))
        assert worker.credit == 0
        gate.set()
        for view in (*running, high, low):
            await end_of(view)
        assert high.fold.started_seq < low.fold.started_seq


async def test_a_request_that_ends_every_run_is_poisoned(broker: Broker, edge: EdgeSide) -> None:
    request = edge.request()
    subjects = journal(EDGE, request.request_id)
    view = await edge.submit(request)
    for number in range(3):
        dead = Started(f"run{number}", f"dead{number}", "$JS.ACK.gone", "x")
        await broker.worker.publish_acked(subjects.run, encode_event(dead))
    async with intake(broker):
        await end_of(view)
        await edge.queue_is_empty()
    assert isinstance(view.fold.terminal, Failed)
    assert view.fold.terminal.code == "poisoned"
    letter = await get_record(broker.topology, STREAM_DLQ, {"seq": 1}, 1.0)
    assert letter is not None


async def test_only_what_was_in_the_step_that_hangs_is_under_suspicion(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge)
    async with intake(broker, "w1", source=f"{SLOW}&hang_on=no%20end", stuck_step_s=0.3) as worker:
        beside = await edge.submit(edge.request())
        await tokens(beside, 3)
        endless = await edge.submit(edge.request("this has no end"))
        await endless.changed(0, None)  # claimed
        await until(lambda: worker.trouble is not None)
        late = await edge.submit(edge.request())
        await late.changed(0, None)
    # Only the late one's claim is forgiven by a `Released`. The one that had got on needs none.
    assert [view.fold.run is None for view in (beside, endless, late)] == [False, False, True]
    assert [view.fold.claims_without_progress for view in (beside, endless, late)] == [0, 1, 0]
    await edge.hub.end(EDGE, "r2", Cancelled("test"))
    async with intake(broker, "w2"):
        assert [await end_of(view) for view in (beside, late)] == [expected] * 2
        await edge.queue_is_empty()


async def test_what_a_broken_backend_held_goes_to_another_worker(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await undisturbed(edge)
    async with intake(broker, "w1") as worker:
        view = await edge.submit(edge.request())
        await tokens(view, 3)
        with monkeypatch.context() as patch:
            patch.setattr(EchoRunner, "forward", lose_device)
            await until(lambda: worker.trouble is not None)
    assert "device lost" in (worker.trouble or "")
    assert view.fold.terminal is None
    async with intake(broker, "w2"):
        assert await end_of(view) == expected
        await edge.queue_is_empty()


async def test_another_models_text_is_not_continued(broker: Broker, edge: EdgeSide) -> None:
    async with intake(broker, "w1", source="echo:random?rate=40"):
        view = await edge.submit(edge.request())
        await tokens(view, 5)
    length = view.fold.length
    async with intake(broker, "other", source="echo:repeat"):
        while view.fold.started is None or view.fold.started.worker != "other":
            await view.changed(view.fold.length, None)
        while view.fold.started is not None:
            await view.changed(view.fold.length, None)
    assert view.fold.length == length
    assert view.fold.terminal is None


async def test_the_broker_is_restarted_in_mid_sentence(broker: Broker, edge: EdgeSide) -> None:
    expected = await undisturbed(edge)
    async with intake(broker):
        views = [await edge.submit(edge.request()) for _ in range(4)]
        for view in views:
            await tokens(view, 5)
        await broker.server.restart()
        assert [await end_of(view) for view in views] == [expected] * 4
        await edge.queue_is_empty()


async def test_a_delivery_still_being_read_when_the_drain_begins_goes_back(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_reading, may_read = asyncio.Event(), asyncio.Event()
    read = Lease.request

    async def slow_read(lease: Lease) -> GenerateRequest:
        is_reading.set()
        await may_read.wait()
        return await read(lease)

    monkeypatch.setattr(Lease, "request", slow_read)
    async with intake(broker) as worker:
        view = await edge.submit(edge.request())
        await is_reading.wait()
        draining = asyncio.create_task(worker.drain())
        await until(lambda: worker.credit == 0)
        may_read.set()
        await draining
    assert view.fold.started is None
    assert view.fold.terminal is None


async def test_a_drain_in_the_middle_of_a_claim_takes_the_request_from_nobody(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the delivery given back first, the claim would fence the worker that has it by then, and nobody run it."""
    expected = await undisturbed(edge)
    request = edge.request()
    dead = Started("dead", "w0", "$JS.ACK.gone", "x")
    await broker.worker.publish_acked(journal(EDGE, request.request_id).run, encode_event(dead))
    is_claiming, may_claim = asyncio.Event(), asyncio.Event()
    read = Claim._last_run_record

    async def slow_read(claim: Claim) -> Record | None:
        if claim._worker_id == "w1":
            is_claiming.set()
            await may_claim.wait()
        return await read(claim)

    monkeypatch.setattr(Claim, "_last_run_record", slow_read)
    async with intake(broker, "w1") as first:
        view = await edge.submit(request)
        await is_claiming.wait()
        draining = asyncio.create_task(first.drain())
        async with intake(broker, "w2"):
            await view.changed(1, 0.5)  # nothing should come, and so there is no event to wait for
            may_claim.set()
            await draining
            assert await end_of(view) == expected
            await edge.queue_is_empty()
    records = await read_records(broker.worker, STREAM_TOKENS, journal(EDGE, "r1").run, is_complete=bool)
    events = [decode_event(record.payload) for record in records]
    assert [event.worker for event in events if isinstance(event, Started)] == ["w0", "w1", "w2"]


async def test_a_worker_that_can_no_longer_pass_tokens_on_says_so(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(session: Session, emission: Emission) -> None:
        raise ZeroDivisionError

    async with intake(broker) as worker:
        assert worker.trouble is None
        monkeypatch.setattr(Session, "take", broken)
        await edge.submit(edge.request())
        await until(lambda: worker.trouble is not None)
        assert "dispatch" in (worker.trouble or "")


async def test_what_cannot_be_claimed_for_want_of_room_goes_back_to_the_queue(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.intake.NO_ROOM_DELAY_S", 0.05)
    expected = await undisturbed(edge)
    consumer = f"INFERFLUX_REQUESTS.{consumer_name('echo', PriorityClass.NORMAL)}"
    info = await broker.topology.api(f"CONSUMER.INFO.{consumer}")
    # Else the lease could run out by itself, later.
    patient = {"stream_name": STREAM_REQUESTS, "config": {**info["config"], "ack_wait": 3600 * 10**9}}
    await broker.topology.api(f"CONSUMER.CREATE.{consumer}.{info['config']['filter_subject']}", patient)
    view = await edge.submit(edge.request())
    stream = await broker.topology.api(f"STREAM.INFO.{STREAM_TOKENS}")
    full = {**stream["config"], "discard": "new", "max_bytes": stream["state"]["bytes"]}
    await broker.topology.api(f"STREAM.UPDATE.{STREAM_TOKENS}", full)
    before = info["delivered"]["consumer_seq"]

    async def was_delivered_thrice() -> bool:
        now = await broker.topology.api(f"CONSUMER.INFO.{consumer}")
        return bool(now["delivered"]["consumer_seq"] >= before + 3)

    async with intake(broker) as worker:
        await until(was_delivered_thrice)
        await broker.topology.api(f"STREAM.UPDATE.{STREAM_TOKENS}", stream["config"])
        assert await end_of(view) == expected
        await edge.queue_is_empty()
        assert worker.credit == worker.slots


async def test_everything_delivered_is_in_hand_until_it_is_settled(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_claim = asyncio.Event()
    acquire = Claim.acquire

    async def acquire_later(claim: Claim) -> ClaimOutcome:
        await may_claim.wait()
        return await acquire(claim)

    monkeypatch.setattr(Claim, "acquire", acquire_later)
    async with intake(broker) as worker:
        view = await edge.submit(edge.request())
        await until(lambda: worker.credit < worker.slots)
        assert await worker.in_hand() == {1}  # not claimed
        assert view.fold.started is None
        may_claim.set()
        await tokens(view, 1)
        assert await worker.in_hand() == {1}
        await end_of(view)
        await edge.queue_is_empty()

        async def is_nothing_in_hand() -> bool:
            return await worker.in_hand() == set()

        await until(is_nothing_in_hand)  # it is let go of in the turn after its settlement


async def test_what_comes_back_later_is_in_hand_meanwhile(
    broker: Broker, edge: EdgeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an edge would take it for lost, and have it delivered before its time."""
    monkeypatch.setattr("workers.session.UNFIT_DELAY_S", 0.2)
    monkeypatch.setattr("workers.intake.TAKEN_AGAIN_S", 0.0)
    deliveries = []
    take = Intake._take
    monkeypatch.setattr(Intake, "_take", lambda self, lease: (deliveries.append(lease), take(self, lease))[1])
    async with intake(broker, "w1"):
        view = await edge.submit(edge.request())
        await tokens(view, 5)
    async with intake(broker, "w2", source="echo:random?seed=2") as other:
        await until(lambda: len(deliveries) == 2 and other.credit == other.slots)
        assert deliveries[1].delay_s == 0.2
        assert await other.in_hand() == {1}
        await edge.hub.end(EDGE, view.request_id, Cancelled("client_gone"))
        await edge.queue_is_empty()
        await until(lambda: not other._leases)
        assert await other.in_hand() == set()
