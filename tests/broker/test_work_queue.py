import asyncio
import time
from typing import Any

import pytest

from broker.blobs import BlobRef, drop_blob, get_blob, put_blob
from broker.errors import BlobMissing
from broker.pull import PullLoop
from broker.roles import Role
from broker.subjects import STREAM_BLOBS, STREAM_REQUESTS
from broker.work_queue import Look, QueueDepth, WorkQueue
from schemas.codec import CodecError
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass, TextPrompt
from tests.conftest import Broker
from tests.support.leases import handed_back, take_lease
from tests.support.nats import NatsServer
from tests.support.requests import make_request
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def _num_queued(broker: Broker) -> int:
    messages: int = (await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]["messages"]
    return messages


async def test_a_request_arrives_as_it_was_submitted(broker: Broker) -> None:
    request = make_request(priority=PriorityClass.LOW, traceparent="00-1-2-01")
    seq = await WorkQueue(broker.edge).submit(request)
    lease = await take_lease(broker.worker)
    assert await lease.request() == request
    assert lease.ref() == ("e1", "r1")
    assert (lease.model, lease.priority, lease.num_delivered, lease.stream_seq) == ("echo", "low", 1, seq)
    assert lease.headers["Ifx-Deadline"] == str(request.deadline_ms)
    assert lease.headers["traceparent"] == "00-1-2-01"
    await lease.ack()
    await lease.ack()
    assert await _num_queued(broker) == 0


async def test_submitting_again_changes_nothing_and_a_reused_requeue_number_is_an_error(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    assert await queue.submit(make_request()) == await queue.submit(make_request())
    await queue.submit(make_request(submission=1))
    with pytest.raises(ServingError) as caught:
        await queue.submit(make_request(submission=1))
    assert caught.value.code is ErrorCode.INTERNAL
    assert await _num_queued(broker) == 2


async def test_a_delivery_is_handed_back_by_its_place_in_the_stream_alone(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    done, kept, lost, waits = [await queue.submit(make_request(f"r{number}")) for number in range(4)]
    leases = {lease.stream_seq: lease for lease in [await take_lease(broker.worker) for _ in range(3)]}
    await leases[done].ack()
    look = await queue.look("echo", PriorityClass.NORMAL, asked_after=time.monotonic())
    async with handed_back(broker) as seqs:
        for seq in (done, lost, lost, waits):
            await queue.hand_back_unclaimed("echo", PriorityClass.NORMAL, seq, look)
    # What is gone or waits is left alone, and once is enough.
    assert seqs == [lost, lost]
    again = [await take_lease(broker.worker) for _ in range(2)]
    assert [(lease.stream_seq, lease.num_delivered) for lease in again] == [(lost, 2), (waits, 1)]
    assert (await queue.look("echo", PriorityClass.NORMAL, asked_after=time.monotonic())).depth == QueueDepth(0, 3)
    assert kept in leases


async def test_a_look_tells_how_many_workers_ask(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    assert (await queue.look("echo", PriorityClass.NORMAL)).num_asking == 0
    loop = PullLoop(broker.worker, "echo", worker_id="w1", on_lease=lambda _: None, credit=lambda: 1)
    await loop.start()

    async def is_asked() -> bool:
        look = await queue.look("echo", PriorityClass.NORMAL, asked_after=time.monotonic())
        return look.num_asking == 1

    await until(is_asked)
    await loop.stop()


async def test_a_full_queue_is_said_so_at_once(broker: Broker) -> None:
    await broker.topology.api(f"STREAM.DELETE.{STREAM_REQUESTS}")
    await broker.apply(broker.model.model_copy(update={"queue_max": 0}), fleet_slots=1)
    queue = WorkQueue(broker.edge)
    await queue.submit(make_request("r1"))
    with pytest.raises(ServingError) as caught:
        await queue.submit(make_request("r2"))
    assert caught.value.code is ErrorCode.QUEUE_FULL
    assert caught.value.retryable


@pytest.mark.parametrize("stream", [STREAM_REQUESTS, STREAM_BLOBS])
async def test_a_full_disk_is_no_full_queue(broker: Broker, stream: str) -> None:
    config = (await broker.topology.api(f"STREAM.INFO.{stream}"))["config"]
    await broker.topology.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 1 << 18})
    queue = WorkQueue(broker.edge)
    with pytest.raises(ServingError, match="no room left") as caught:
        for number in range(10):
            body = "x" * (100_000 if stream == STREAM_REQUESTS else 500_000)
            await queue.submit(make_request(f"r{number}", prompt=TextPrompt(body)))
    assert caught.value.code is ErrorCode.BROKER_UNAVAILABLE
    assert caught.value.retry_after_s is not None


async def test_a_submission_waits_out_a_restart_of_the_broker(broker: Broker) -> None:
    await broker.server.kill()
    submitting = asyncio.create_task(WorkQueue(broker.edge).submit(make_request()))
    await asyncio.sleep(0.1)
    await broker.server.start()
    await submitting
    await until(lambda: broker.topology.is_connected)
    assert await _num_queued(broker) == 1


async def test_a_broker_that_stays_away_is_unavailable(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.work_queue._SUBMIT_S", 0.1)
    await broker.server.kill()
    with pytest.raises(ServingError) as caught:
        await WorkQueue(broker.edge).submit(make_request())
    assert caught.value.code is ErrorCode.BROKER_UNAVAILABLE
    with pytest.raises(ServingError):
        await WorkQueue(broker.edge).depth("echo", PriorityClass.HIGH)


async def test_no_stream_is_unavailable(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.work_queue._SUBMIT_S", 0.1)
    edge = await nats_server.connect(Role.EDGE)
    with pytest.raises(ServingError) as caught:
        await WorkQueue(edge).submit(make_request())
    assert caught.value.code is ErrorCode.BROKER_UNAVAILABLE


async def test_a_withdrawn_request_is_never_delivered(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    seq = await queue.submit(make_request("r1"))
    await queue.submit(make_request("r2"))
    await queue.withdraw(seq)
    await queue.withdraw(seq)
    assert (await take_lease(broker.worker)).ref().request_id == "r2"


async def test_withdrawing_a_running_request_leaves_its_ack_harmless(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    seq = await queue.submit(make_request())
    lease = await take_lease(broker.worker)
    await queue.withdraw(seq)
    await lease.renew()
    await lease.ack()
    assert await _num_queued(broker) == 0


async def _depth_becomes(queue: WorkQueue, depth: QueueDepth) -> None:
    """The broker counts what it has stored, and delivered, a moment later."""

    async def is_so() -> bool:
        return (await queue.look("echo", PriorityClass.NORMAL, asked_after=time.monotonic())).depth == depth

    await until(is_so)


async def test_depth_tells_waiting_from_running(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.work_queue._CACHE_S", 0)
    queue = WorkQueue(broker.edge)
    assert await queue.depth("echo", PriorityClass.NORMAL) == QueueDepth(0, 0)
    assert await queue.depth("unknown", PriorityClass.NORMAL) == QueueDepth(0, 0)
    assert await queue.oldest_age_s("echo", PriorityClass.NORMAL) == 0.0
    for number in range(3):
        await queue.submit(make_request(f"r{number}"))
    await _depth_becomes(queue, QueueDepth(3, 0))
    await take_lease(broker.worker)
    await _depth_becomes(queue, QueueDepth(2, 1))
    assert 0.0 <= await queue.oldest_age_s("echo", PriorityClass.NORMAL) < 60


async def test_many_who_ask_for_the_depth_cost_one_question(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    before = broker.edge.raw.stats["out_msgs"]
    await asyncio.gather(*(queue.depth("echo", PriorityClass.NORMAL) for _ in range(50)))
    await queue.depth("echo", PriorityClass.NORMAL)
    assert broker.edge.raw.stats["out_msgs"] == before + 1


async def test_a_look_is_renewed_before_somebody_has_to_wait_for_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.work_queue._CACHE_S", 3600)
    queue = WorkQueue(broker.edge)
    look = await queue.look("echo", PriorityClass.NORMAL)
    [name] = queue._looks
    aged = queue._looks[name] = look._replace(asked_at=look.asked_at - 2000)
    assert await queue.look("echo", PriorityClass.NORMAL) is aged
    await until(lambda: queue._looks[name] is not aged)
    renewed = await queue.look("echo", PriorityClass.NORMAL)
    assert renewed.asked_at >= look.asked_at and not queue._looking


async def test_a_look_can_be_asked_for_that_is_newer_than_the_last(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    first = await queue.look("echo", PriorityClass.NORMAL)
    assert await queue.look("echo", PriorityClass.NORMAL) is first
    await queue.submit(make_request())
    await _depth_becomes(queue, QueueDepth(1, 0))
    asked_at = time.monotonic()
    looks = await asyncio.gather(
        *(queue.look("echo", PriorityClass.NORMAL, asked_after=asked_at) for _ in range(20)),
    )
    assert all(look.asked_at >= asked_at and look.depth == QueueDepth(1, 0) for look in looks)
    lease = await take_lease(broker.worker)
    await _depth_becomes(queue, QueueDepth(0, 1))
    look = await queue.look("echo", PriorityClass.NORMAL, asked_after=time.monotonic())
    assert (look.depth, look.num_delivered, look.delivered_seq) == (QueueDepth(0, 1), 1, lease.stream_seq)


async def test_whoever_asks_just_when_an_answer_comes_gets_a_newer_one(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, ask, answered, goes_on = WorkQueue(broker.edge), broker.edge.api, asyncio.Event(), asyncio.Event()

    async def slow(name: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
        answer = await ask(name, body, timeout_s)
        answered.set()
        await goes_on.wait()
        return answer

    async def ask_then() -> Look:
        await goes_on.wait()
        return await queue.look("echo", PriorityClass.NORMAL, asked_after=time.monotonic())

    monkeypatch.setattr(broker.edge, "api", slow)
    early = asyncio.create_task(queue.look("echo", PriorityClass.NORMAL))
    await answered.wait()
    # Woken behind the question that has its answer now, and ahead of everybody who waits for that.
    late = asyncio.create_task(ask_then())
    await asyncio.sleep(0)
    goes_on.set()
    assert (await late).asked_at > (await early).asked_at


async def test_what_is_known_of_queues_is_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.work_queue._MAX_KNOWN", 3)
    queue = WorkQueue(broker.edge)
    for number in range(10):
        await queue.depth(f"model-{number}", PriorityClass.NORMAL)
    assert len(queue._looks) <= 3


async def test_a_body_whose_request_was_not_taken_is_dropped(broker: Broker) -> None:
    await broker.topology.api(f"STREAM.DELETE.{STREAM_REQUESTS}")
    await broker.apply(broker.model.model_copy(update={"queue_max": 0}), fleet_slots=1)
    queue = WorkQueue(broker.edge)
    await queue.submit(make_request("r1"))
    with pytest.raises(ServingError):
        await queue.submit(make_request("r2", prompt=TextPrompt("long " * 100_000)))
    await queue.release_body("r2")
    info = await broker.topology.api(f"STREAM.INFO.{STREAM_BLOBS}")
    assert info["state"]["messages"] == 0
    assert not queue._blobs


async def test_a_delivery_can_be_handed_back_for_a_dead_worker(broker: Broker) -> None:
    queue = WorkQueue(broker.edge)
    await queue.submit(make_request())
    dead = await take_lease(broker.worker)
    await queue.hand_back(dead.ack_subject)
    again = await take_lease(broker.worker)
    assert (again.stream_seq, again.num_delivered) == (dead.stream_seq, 2)


@pytest.mark.parametrize("subject", ["inferflux.ctl.worker.w1", "$JS.ACK.OTHER.c.1.1.1.1.0", "x", ""])
async def test_nothing_but_an_ack_subject_is_handed_back(broker: Broker, subject: str) -> None:
    with pytest.raises(ValueError):
        await WorkQueue(broker.edge).hand_back(subject)


async def test_a_large_body_takes_the_way_around(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.blobs._READ_S", 0.2)
    request = make_request(prompt=TextPrompt("long " * 400_000))
    queue = WorkQueue(broker.edge)
    await queue.submit(request)
    lease = await take_lease(broker.worker)
    assert lease.payload == b""
    assert await lease.request() == request
    await queue.release_body("r1")
    with pytest.raises(BlobMissing):
        await lease.request()


async def test_a_body_put_twice_is_one_body(broker: Broker) -> None:
    await put_blob(broker.edge, "b1", b"old" * 300_000)
    ref = await put_blob(broker.edge, "b1", b"new" * 200_000)
    assert await get_blob(broker.worker, ref) == b"new" * 200_000
    assert BlobRef.parse(str(ref)) == ref


async def test_a_body_with_a_hole_is_missing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.blobs._READ_S", 0.1)
    ref = await put_blob(broker.edge, "b1", bytes(600_000))
    await broker.topology.api(f"STREAM.PURGE.{STREAM_BLOBS}", {"filter": "inferflux.blob.b1.1"})
    with pytest.raises(BlobMissing, match="2 of 3 chunks"):
        await get_blob(broker.worker, ref)
    await drop_blob(broker.edge, "b1")


@pytest.mark.parametrize(
    "headers",
    [{"Ifx-Blob": "a.b 1 1 0"}, {"Ifx-Blob": "x"}, {"Ifx-Blob": "b1 one 1 0"}, {}],
)
async def test_a_message_by_hand_that_is_no_request_is_told_apart(broker: Broker, headers: dict[str, str]) -> None:
    await broker.edge.publish_acked("inferflux.req.echo.high.0", b"junk", headers=headers)
    lease = await take_lease(broker.worker)
    with pytest.raises(CodecError):
        await lease.request()
    with pytest.raises(CodecError):
        lease.ref()
    await lease.term()
    assert await _num_queued(broker) == 0


async def test_a_lease_is_overdue_when_it_was_not_renewed_for_ack_wait(broker: Broker) -> None:
    await WorkQueue(broker.edge).submit(make_request())
    lease = await take_lease(broker.worker)
    assert not (lease.is_overdue or lease.needs_renewal)
    lease._renewed_at -= 6
    assert lease.needs_renewal
    assert not lease.is_overdue
    lease._renewed_at -= 10
    assert lease.is_overdue
    await lease.renew()
    assert not (lease.is_overdue or lease.needs_renewal)
