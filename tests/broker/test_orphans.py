"""What an ended worker held goes back into the queue, and nothing else does."""

import time

import pytest

from broker.claims import Claim
from broker.headers import RequestRef
from broker.orphans import hand_back_orphans
from broker.subjects import journal
from broker.work_queue import WorkQueue
from schemas.codec import encode_event
from schemas.events import FinishReason, Started, Usage
from tests.conftest import Broker
from tests.support.leases import handed_back, take_lease
from tests.support.requests import make_request

pytestmark = pytest.mark.nats
LONG_S = 600


async def _claim(broker: Broker, request_id: str, worker_id: str) -> Claim:
    """A claim of that worker on the next delivery, which is that request."""
    lease = await take_lease(broker.worker)
    claim = Claim(broker.worker, RequestRef("e1", request_id), lease, worker_id=worker_id, fingerprint="f")
    await claim.acquire()
    return claim


async def _submitted(broker: Broker, request_id: str, worker_id: str) -> Claim:
    await WorkQueue(broker.edge).submit(make_request(request_id))
    return await _claim(broker, request_id, worker_id)


async def _hand_back(broker: Broker, worker_id: str, *, started_at: float | None = None) -> int:
    return await hand_back_orphans(broker.topology, worker_id, time.time() if started_at is None else started_at)


async def test_what_a_dead_worker_held_is_delivered_again(broker: Broker) -> None:
    held = [(await _submitted(broker, f"r{number}", "dead"))._lease.stream_seq for number in range(3)]
    assert await _hand_back(broker, "dead") == 3
    again = [await take_lease(broker.worker) for _ in held]
    assert [lease.stream_seq for lease in again] == held


async def test_what_others_hold_and_what_is_over_is_left_alone(broker: Broker) -> None:
    finished = await _submitted(broker, "finished", "dead")
    assert await finished.finish(FinishReason.STOP, Usage(1, 1), [1], ["a"])
    released = await _submitted(broker, "released", "dead")
    assert await released.release(LONG_S)
    taken_over = await _submitted(broker, "taken-over", "dead")
    await WorkQueue(broker.edge).hand_back(taken_over._lease.ack_subject)
    await _claim(broker, "taken-over", "heir")
    await _submitted(broker, "another-ones", "another")
    held = await _submitted(broker, "held", "dead")

    async with handed_back(broker) as seqs:
        assert await _hand_back(broker, "dead") == 1
        assert (await take_lease(broker.worker)).stream_seq == held._lease.stream_seq
    assert seqs == [held._lease.stream_seq]


async def test_an_empty_queue_needs_no_look_at_the_journals(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = await _submitted(broker, "finished", "drained")
    assert await finished.finish(FinishReason.STOP, Usage(1, 1), [1], ["a"])
    monkeypatch.delattr("broker.orphans.JournalReader")
    assert await _hand_back(broker, "drained") == 0


async def test_a_claim_that_names_no_delivery_of_ours_is_passed_over(broker: Broker) -> None:
    forged = Started("run", "dead", "inferflux.ctl.worker.w1", "f")
    await broker.worker.publish_acked(journal("e1", "forged").run, encode_event(forged))
    await _submitted(broker, "held", "dead")
    assert await _hand_back(broker, "dead") == 1


async def test_only_the_time_of_the_worker_is_looked_at(broker: Broker) -> None:
    await _submitted(broker, "held", "dead")
    assert await _hand_back(broker, "dead", started_at=time.time() + LONG_S) == 0
    assert await _hand_back(broker, "dead") == 1
