"""A journal is opened and its request queued at once: whichever of the two arrives first or is refused."""

from typing import Any

import pytest

from broker.connection import Connection
from broker.records import read_records
from broker.subjects import STREAM_TOKENS, journal
from producer.edge.ids import mint_request_id
from schemas.codec import decode_event, encode_event
from schemas.events import Accepted, Delta, Event, Finished, Started, Usage
from tests.conftest import Broker
from tests.producer.conftest import Edge, chat, put_model, running_edge
from tests.producer.scripted_worker import ScriptedWorker
from tests.producer.test_leaving import num_queued
from tests.producer.test_resuming import error_of, resume
from tests.producer.test_stream import events_of, text_of
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def test_a_claim_that_was_faster_than_the_journals_head_is_read(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    await edge.post(chat("a b", stream=True), Idempotency_Key="k")
    heads = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.*.*.head", is_complete=bool)
    head = decode_event(heads[0].payload)
    assert isinstance(head, Accepted)
    request_id = mint_request_id()
    subjects = journal("dead", request_id)
    accepted = head._replace(request_id=request_id, idempotency_key=None)
    written: list[tuple[Connection, str, Event]] = [
        (broker.worker, subjects.run, Started("r", "w1", "", "fp_test")),
        (broker.edge, subjects.head, accepted),
        (broker.worker, subjects.ev, Delta("r", 0, [1, 2], ["on", "ce"])),
        (broker.worker, subjects.ev, Finished("r", "stop", Usage(1, 3), [1, 2, 3], ["on", "ce", "!"])),
    ]
    for connection, subject, event in written:
        await connection.publish_acked(subject, encode_event(event))
    assert text_of(events_of((await resume(edge, request_id)).content)) == "once!"


async def test_without_its_journal_a_request_is_not_left_in_the_queue(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    info: dict[str, Any] = await broker.topology.api(f"STREAM.INFO.{STREAM_TOKENS}")
    async with running_edge(broker) as edge:
        # No room in the stream of journals, which in earnest is a full disk.
        full = info["config"] | {"discard": "new", "max_msgs": 1}
        await broker.edge.publish_acked(journal("e9", "other").head, b"")
        await broker.topology.api(f"STREAM.UPDATE.{STREAM_TOKENS}", full)
        assert error_of(await edge.post(chat())) == (503, "broker_unavailable")

        async def is_withdrawn() -> bool:
            return await num_queued(broker) == 0

        await until(is_withdrawn)
        await broker.topology.api(f"STREAM.UPDATE.{STREAM_TOKENS}", info["config"])
