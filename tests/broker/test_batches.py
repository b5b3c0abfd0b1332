"""Lines of batches and their results through a real server, each side with its own login."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.batch_publisher import BatchPublisher
from broker.batch_queue import BatchLease, BatchQueue
from broker.batch_results import BatchResults
from broker.connection import BrokerConfig, Connection
from broker.errors import Refused
from broker.roles import Role
from broker.subjects import BATCH_LANES, ResultEnd, batch_subject, parse_batch, result_subject
from schemas.batch import (
    BatchLine,
    BatchResult,
    LineAddress,
    decode_line,
    decode_result,
    encode_line,
    encode_result,
    read_address,
)
from schemas.codec import CodecError
from tests.conftest import Broker
from tests.support.batches import batch_line, batch_publisher

pytestmark = pytest.mark.nats


def _result(line: BatchLine, request_id: str = "r1") -> BatchResult:
    return BatchResult(
        job=line.job,
        index=line.index,
        custom_id=line.custom_id,
        request_id=request_id,
        status_code=200,
        body={"choices": []},
    )


@pytest.fixture
async def publishers(broker: Broker) -> AsyncIterator[tuple[BatchPublisher, BatchPublisher]]:
    async with batch_publisher(broker, "acme") as acme, batch_publisher(broker, "other") as other:
        yield acme, other


@pytest.fixture
async def queue(broker: Broker) -> AsyncIterator[BatchQueue]:
    queue = BatchQueue(broker.edge, wait_s=0.05)
    await queue.start()
    yield queue
    await queue.close()


async def _look(queue: BatchQueue) -> BatchLease | None:
    """A line of whichever lane has one."""
    found = [lease for lease in await asyncio.gather(*map(queue.next, range(BATCH_LANES))) if lease is not None]
    for lease in found[1:]:
        await lease.nak()
    return found[0] if found else None


async def _take(queue: BatchQueue) -> BatchLease:
    while (lease := await _look(queue)) is None:
        pass
    return lease


async def test_a_line_comes_to_an_edge_and_its_result_to_its_tenant_alone(
    queue: BatchQueue, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    acme, other = publishers
    line = batch_line("j1", 7)
    first = await acme.publish(line)
    assert (await acme.publish(line)).duplicate
    lease = await _take(queue)
    assert (lease.tenant, lease.model, lease.queued(), lease.stream_seq) == ("acme", "echo", line, first.seq)
    assert await acme.result("j1", 7) is None
    await queue.publish_result(lease.tenant, _result(line))
    await lease.ack()
    assert await acme.result("j1", 7) == _result(line)
    assert await other.result("j1", 7) is None
    assert await _look(queue) is None


async def test_the_first_result_of_a_line_stands(
    queue: BatchQueue, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    line = batch_line("j1", 0)
    for request_id in ("r1", "r1", "r2"):
        await queue.publish_result("acme", _result(line, request_id))
    assert await publishers[0].result("j1", 0) == _result(line, "r1")


async def test_an_error_is_a_result_as_well_and_only_one_of_both_stands(
    queue: BatchQueue, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    line = batch_line("j1", 0)
    failed = _result(line).model_copy(update={"status_code": 400, "body": {"error": {"code": "x"}}})
    await queue.publish_result("acme", failed)
    await queue.publish_result("acme", _result(line, "r2"))
    assert await publishers[0].result("j1", 0) == failed


async def test_results_are_counted_read_and_dropped_by_job(broker: Broker, queue: BatchQueue) -> None:
    results, number = BatchResults(broker.edge), 600
    lines = [batch_line("j1", index) for index in range(number)]
    for line in lines:
        result = _result(line, f"r{line.index}")
        if line.index % 3 == 0:
            result = result.model_copy(update={"status_code": 404, "body": {"error": {"code": "x"}}})
        await queue.publish_result("acme", result)
    await queue.publish_result("acme", _result(batch_line("j2", 0), "other-job"))
    await queue.publish_result("other", _result(batch_line("j1", 0), "other-tenant"))
    assert await results.counts("acme", "j1") == (400, 200)
    assert await results.counts("acme", "never") == (0, 0)
    assert [each.index async for each in results.read("acme", "j1")] == list(range(number))
    assert [each.index async for each in results.read("acme", "j1", end=ResultEnd.FAILED)] == list(range(0, number, 3))
    assert [each.index async for each in results.read("acme", "j1", after_seq=598)] == [598, 599]
    assert await results.exists("acme", "j1", 599)
    assert not await results.exists("acme", "j1", 600)
    assert await results.delete("acme", "j1") == number
    assert await results.counts("acme", "j1") == (0, 0)
    assert await results.counts("acme", "j2") == await results.counts("other", "j1") == (1, 0)


async def test_lines_of_a_tenant_for_a_model_are_in_one_lane_in_order(
    queue: BatchQueue, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    for index in range(20):
        await publishers[0].publish(batch_line("j1", index))
        await publishers[1].publish(batch_line("j1", index))
    first = await _take(queue)
    lanes = {first.lane}
    taken = {first.tenant: [first.queued()]}
    for _ in range(39):
        lease = await _take(queue)
        lanes.add(lease.lane)
        taken.setdefault(lease.tenant, []).append(lease.queued())
    assert len(lanes) == len(taken) == 2
    for lines in taken.values():
        assert lines == [batch_line("j1", index) for index in range(20)]


async def test_several_are_taken_at_once_and_those_not_used_go_back(
    queue: BatchQueue, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    for index in range(6):
        await publishers[0].publish(batch_line("j1", index))
    first = await _take(queue)
    second = await queue.next(first.lane, 8)
    assert second is not None and second.queued() == batch_line("j1", 1)
    await queue.give_back(first.lane)
    again = await queue.next(first.lane)
    assert again is not None and again.queued() != batch_line("j1", 1)
    # Nothing is left behind when it closes.
    await queue.close()
    await queue.start()
    left = [await _take(queue) for _ in range(3)]
    assert {lease.stream_seq for lease in (first, second, again, *left)} == set(range(1, 7))


async def test_after_the_loss_of_the_server_lines_are_asked_for_again(
    broker: Broker, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    queue = BatchQueue(broker.edge)
    await queue.start()
    waiting = [asyncio.create_task(queue.next(lane)) for lane in range(BATCH_LANES)]
    await asyncio.sleep(0)
    await broker.server.restart()
    assert await asyncio.gather(*waiting) == [None] * BATCH_LANES
    await queue.close()


async def test_a_line_given_back_comes_again_under_the_same_name(
    queue: BatchQueue, publishers: tuple[BatchPublisher, BatchPublisher]
) -> None:
    await publishers[0].publish(batch_line("j1", 0))
    first = await _take(queue)
    await first.nak()
    second = await _take(queue)
    assert second.key == first.key
    await second.ack()


async def test_a_tenant_may_do_no_more(broker: Broker) -> None:
    config = BrokerConfig(broker.server.url, Role.BATCH, "acme", broker.server.credentials, "acme")
    connection = await Connection.open(config)
    try:
        for subject in (
            batch_subject("other", "echo"),
            result_subject("acme", "j1", 0, ResultEnd.DONE),
            "inferflux.batch.0.acme.echo",
            "inferflux.req.echo.high.0",
            "$JS.API.CONSUMER.MSG.NEXT.INFERFLUX_BATCH.lane-0",
            "$JS.API.DIRECT.GET.INFERFLUX_RESULTS",
            f"$JS.API.DIRECT.GET.INFERFLUX_RESULTS.{result_subject('other', 'j1', 0, ResultEnd.DONE)}",
            "$JS.API.STREAM.INFO.INFERFLUX_BATCH",
        ):
            with pytest.raises(Refused):
                await connection.request(subject, b"{}")
        # Another tenant's result is not reached by asking for another one than the subject names.
        await BatchQueue(broker.edge).publish_result("other", _result(batch_line("j1", 0)))
        own = f"$JS.API.DIRECT.GET.INFERFLUX_RESULTS.{result_subject('acme', 'j1', 0, ResultEnd.DONE)}"
        for query in (
            b'{"seq": 1}',
            b'{"last_by_subj": "inferflux.result.other.j1.0.done"}',
            b'{"batch": 9, "seq": 1}',
        ):
            answer = await connection.request(own, query)
            assert b"choices" not in answer.data
    finally:
        await connection.close()


async def test_a_worker_may_neither_take_lines_nor_write_results(broker: Broker) -> None:
    for subject in ("$JS.API.CONSUMER.MSG.NEXT.INFERFLUX_BATCH.lane-0", "inferflux.result.acme.j1.0.done"):
        with pytest.raises(Refused):
            await broker.worker.request(subject, b"{}")


async def test_a_subject_that_names_no_model_is_dropped(broker: Broker, queue: BatchQueue) -> None:
    config = BrokerConfig(broker.server.url, Role.BATCH, "acme", broker.server.credentials, "acme")
    connection = await Connection.open(config)
    await connection.publish_acked("inferflux.batch.acme.a$b", b"{}", msg_id="bad")
    await connection.publish_acked(batch_subject("acme", "echo"), encode_line(batch_line("j1", 0)), msg_id="good")
    await connection.close()
    assert (await _take(queue)).queued() == batch_line("j1", 0)


async def test_a_line_without_a_model_is_not_published(publishers: tuple[BatchPublisher, BatchPublisher]) -> None:
    with pytest.raises(ValueError, match="line 3 of j1 names no model"):
        await publishers[0].publish(batch_line("j1", 3, model=None))


def test_subjects_name_any_tenant_and_model() -> None:
    assert batch_subject("ac.me", "org/model:1") == "inferflux.batch.ac=2Eme.org=2Fmodel=3A1"
    assert parse_batch("inferflux.batch.3.ac=2Eme.org=2Fmodel=3A1") == (3, "ac.me", "org/model:1")
    with pytest.raises(ValueError, match="not a batch subject"):
        parse_batch("inferflux.batch.acme.echo")
    with pytest.raises(ValueError, match="not a valid id"):
        result_subject("acme", "a.b", 0, "*")


def test_lines_and_results_are_packed_and_unpacked() -> None:
    line = batch_line("j1", 5, temperature=0.5)
    assert decode_line(encode_line(line)) == line
    assert decode_line(line.model_dump_json().encode()) == line
    assert decode_result(encode_result(_result(line))) == _result(line)
    assert _result(line).error is None
    failed = _result(line).model_copy(update={"status_code": 400, "body": {"error": {"code": "x"}}})
    assert failed.error == {"code": "x"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job": "a.b"}, "field job"),
        ({"index": -1}, "field index"),
        ({"custom_id": ""}, "field custom_id"),
        ({"url": "/v1/embeddings"}, "field url"),
        ({"body": []}, "field body"),
        ({"more": 1}, "field more"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    fields = batch_line("j1", 0).model_dump() | changes
    with pytest.raises(CodecError, match=message):
        decode_line(json.dumps(fields).encode())


def test_where_an_unreadable_line_belongs_is_read_all_the_same() -> None:
    fields = {"job": "j1", "index": 3, "custom_id": "mine", "url": "nowhere"}
    assert read_address(json.dumps(fields).encode()) == LineAddress(job="j1", index=3, custom_id="mine")
    assert read_address(json.dumps(fields | {"custom_id": 5}).encode()) == LineAddress(job="j1", index=3, custom_id="3")
    for wrong in ({"job": "a.b"}, {"index": -1}, {"index": "3"}, {"job": None}):
        assert read_address(json.dumps(fields | wrong).encode()) is None
    assert read_address(b"[1]") is read_address(b"nothing") is None


@pytest.mark.parametrize("payload", [b"", b"\x02", b"{", b"\x01\xc1", b"[" * 9])
def test_what_is_no_line_is_told(payload: bytes) -> None:
    with pytest.raises(CodecError):
        decode_line(payload)
