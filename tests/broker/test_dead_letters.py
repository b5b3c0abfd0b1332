"""Requests that were given up: kept whole, found again, queued again, dropped."""

import time
from dataclasses import replace

import pytest

from broker.blobs import drop_blob
from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.dead_letters import DeadLetter, DeadLetters
from broker.errors import BlobMissing
from broker.headers import RequestRef, parse_headers
from broker.journal import JournalHub
from broker.records import get_record, read_records
from broker.requeue import DLQ_EDGE, requeue
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, journal
from broker.work_queue import MAX_INLINE_BYTES, WorkQueue
from schemas.codec import CodecError, decode_event
from schemas.errors import ErrorCode, ServingError
from schemas.events import Accepted
from schemas.requests import GenerateRequest, Identity, PriorityClass, TextPrompt
from tests.conftest import Broker
from tests.support.leases import take_lease
from tests.support.requests import make_request

pytestmark = pytest.mark.nats
_LARGE = "x" * (2 * MAX_INLINE_BYTES)


async def _given_up(broker: Broker, request: GenerateRequest) -> Claim:
    """Accepted, queued, claimed by three workers that ended, and ready to be put aside by a fourth."""
    options = {"call": "whole", "part": 1, "parts": 2, "include_usage": True}
    accepted = Accepted(request.request_id, "k_test", "completions", "echo", request.created, options, "hash", "key")
    await JournalHub(broker.edge, "e1").accept(accepted)
    await WorkQueue(broker.edge).submit(request)
    lease = await take_lease(broker.worker)
    ref = RequestRef("e1", request.request_id)
    for number in range(4):
        claim = Claim(broker.worker, ref, lease, worker_id=f"w{number}", fingerprint="f")
        outcome = await claim.acquire()
    assert outcome is ClaimOutcome.POISONED
    return claim


async def _letter(broker: Broker, request: GenerateRequest) -> DeadLetter:
    claim = await _given_up(broker, request)
    assert await claim.poison("kills workers")
    letter = await DeadLetters(broker.edge).find(request.request_id)
    assert letter is not None
    return letter


async def _looking(broker: Broker) -> Connection:
    return await broker.server.connect(Role.INSPECTOR_FULL)


def test_headers_are_read_as_the_server_keeps_them() -> None:
    block = b"NATS/1.0\r\nIfx-Edge: e1\r\nIfx-Reason: a: b\r\n\r\n"
    assert parse_headers(block) == {"Ifx-Edge": "e1", "Ifx-Reason": "a: b"}
    assert parse_headers(b"") == {}


async def test_a_letter_says_who_what_and_why(broker: Broker) -> None:
    request = make_request("r1", priority=PriorityClass.HIGH, identity=Identity("k_test", tenant="acme"))
    letter = await _letter(broker, request)
    assert (letter.request_id, letter.model, letter.priority, letter.tenant) == ("r1", "echo", "high", "acme")
    assert (letter.reason, letter.attempts) == ("kills workers", 3)
    assert abs(letter.at - time.time()) < 60
    assert letter.accepted is not None
    assert (letter.accepted.owner, letter.accepted.idempotency_key) == ("k_test", None)
    assert not any(name.startswith("Nats-") for name in letter.headers)
    assert await DeadLetters(await _looking(broker)).request(letter) == request


async def test_all_letters_come_oldest_first(broker: Broker) -> None:
    for name in ("r2", "r1", "r3"):
        await _letter(broker, make_request(name))
    letters = DeadLetters(await _looking(broker))
    assert [letter.request_id async for letter in letters.all()] == ["r2", "r1", "r3"]
    assert await letters.find("absent") is None


async def test_a_request_is_put_aside_once_however_many_try(broker: Broker) -> None:
    claim = await _given_up(broker, make_request())
    other = Claim(broker.worker, RequestRef("e1", "r1"), claim._lease, worker_id="w9", fingerprint="f")
    await other.acquire()
    assert not await claim.poison("kills workers")  # fenced, and its letter is there
    assert await other.poison("kills workers")
    assert len([letter async for letter in DeadLetters(broker.edge).all()]) == 1


async def test_a_large_body_is_kept_in_the_letter(broker: Broker) -> None:
    request = make_request(prompt=TextPrompt(_LARGE))
    letter = await _letter(broker, request)
    await drop_blob(broker.edge, "r1")  # as its edge does at its end
    assert await DeadLetters(broker.edge).request(letter) == request


async def test_a_body_too_large_for_a_message_may_be_gone(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    request = make_request(prompt=TextPrompt(_LARGE))
    claim = await _given_up(broker, request)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "max_payload", MAX_INLINE_BYTES)
        assert await claim.poison("kills workers")
    letters = DeadLetters(broker.edge)
    letter = await letters.find("r1")
    assert letter is not None
    assert await letters.request(letter) == request
    await drop_blob(broker.edge, "r1")
    with pytest.raises(BlobMissing, match="too large to be kept"):
        await requeue(broker.edge, letter)
    assert await letters.find("r1") is not None
    assert await _num_queued(broker) == 0


async def test_what_was_put_aside_without_a_body_is_not_queued(broker: Broker) -> None:
    letter = await _letter(broker, make_request())
    with pytest.raises(BlobMissing, match="was not kept"):
        await requeue(broker.edge, letter._replace(payload=b""))
    with pytest.raises(CodecError):
        await requeue(broker.edge, letter._replace(payload=b"no request"))
    assert await _num_queued(broker) == 0


async def test_a_letter_is_queued_again_as_a_new_request_of_the_same_owner(broker: Broker) -> None:
    before = int(time.time()) - 3600  # put aside an hour ago
    request = make_request(created=before, deadline_ms=(before + 60) * 1000, submission=2, traceparent="00-1-2-03")
    letter = await _letter(broker, request)
    new_id = await requeue(broker.edge, letter)
    assert new_id != "r1"
    assert await DeadLetters(broker.edge).find("r1") is None

    lease = await take_lease(broker.worker)
    again = await lease.request()
    same = replace(again, request_id="r1", edge="e1", created=before, deadline_ms=request.deadline_ms, submission=2)
    assert same == request
    assert (again.request_id, again.edge, again.submission) == (new_id, DLQ_EDGE, 0)
    assert again.deadline_ms - again.created * 1000 == 60_000
    assert abs(again.created - time.time()) < 60
    assert (lease.headers["Ifx-Request-Id"], lease.headers["Ifx-Edge"]) == (new_id, DLQ_EDGE)
    assert lease.headers["traceparent"] == "00-1-2-03"

    accepted = await _head(broker, new_id)
    assert (accepted.owner, accepted.idempotency_key, accepted.model) == ("k_test", None, "echo")
    # One prompt of a call with two is a call of its own now; the rest of its shape is as it was.
    assert (accepted.options["part"], accepted.options["parts"], accepted.options["call"]) == (0, 1, new_id)
    assert accepted.options["include_usage"] is True
    assert accepted.options["deadline_ms"] == again.deadline_ms


async def test_the_same_letter_queued_twice_runs_once(broker: Broker) -> None:
    letter = await _letter(broker, make_request())
    assert await requeue(broker.edge, letter) == await requeue(broker.edge, letter)
    assert await _num_queued(broker) == 1


async def test_a_letter_stays_while_the_queue_is_full(broker: Broker) -> None:
    letter = await _letter(broker, make_request())
    await broker.apply(broker.model.model_copy(update={"queue_max": 1}), fleet_slots=1)
    info = await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
    for number in range(info["config"]["max_msgs_per_subject"]):
        await WorkQueue(broker.edge).submit(make_request(f"other{number}"))
    with pytest.raises(ServingError) as raised:
        await requeue(broker.edge, letter)
    assert raised.value.code is ErrorCode.QUEUE_FULL
    assert await DeadLetters(broker.edge).find("r1") is not None
    subject = f"inferflux.tok.{DLQ_EDGE}.>"
    assert await get_record(broker.edge, STREAM_TOKENS, {"last_by_subj": subject}) is None


async def test_a_letter_of_a_model_that_is_gone_stays(broker: Broker) -> None:
    letter = await _letter(broker, make_request())
    await broker.apply(broker.model.model_copy(update={"id": "another"}))
    with pytest.raises(ServingError) as raised:
        await requeue(broker.edge, letter)
    assert raised.value.code is ErrorCode.MODEL_NOT_FOUND
    assert await DeadLetters(broker.edge).find("r1") is not None


async def test_a_letter_that_is_dropped_is_gone(broker: Broker) -> None:
    letter, kept = await _letter(broker, make_request("r1")), await _letter(broker, make_request("r2"))
    letters = DeadLetters(broker.edge)
    await letters.drop(letter)
    await letters.drop(letter)
    assert [each.request_id async for each in letters.all()] == [kept.request_id]


async def _head(broker: Broker, request_id: str) -> Accepted:
    subject = journal(DLQ_EDGE, request_id).head
    (record,) = await read_records(broker.edge, STREAM_TOKENS, subject, is_complete=bool)
    event = decode_event(record.payload)
    assert isinstance(event, Accepted)
    return event


async def _num_queued(broker: Broker) -> int:
    count: int = (await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]["messages"]
    return count
