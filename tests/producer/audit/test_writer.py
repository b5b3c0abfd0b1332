"""Events on their way into the stream."""

import asyncio
import json
from typing import Any

import pytest

from broker.records import read_records
from broker.subjects import AUDIT_ALL, STREAM_AUDIT, audit_subject
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError
from tests.conftest import Broker
from tests.producer.audit.conftest import Open
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def records(broker: Broker, writer: str | None = None) -> list[dict[str, Any]]:
    subject = AUDIT_ALL if writer is None else audit_subject(writer)
    blocks = await read_records(broker.edge, STREAM_AUDIT, subject, is_complete=lambda _: True)
    return [json.loads(line) for block in blocks for line in block.payload.split(b"\n")]


def change(number: int = 0) -> AuditEvent:
    return AuditEvent("limits.set", Outcome.ALLOWED, actor="root", target=str(number))


async def test_what_is_required_is_stored_when_it_returns(broker: Broker, open_audit: Open) -> None:
    async with open_audit() as audit:
        await audit.require(change())
        assert [each["action"] for each in await records(broker)] == ["edge.start", "limits.set"]


async def test_what_is_noted_comes_in_order_and_before_the_end(broker: Broker, open_audit: Open) -> None:
    async with open_audit() as audit:
        for number in range(1000):
            audit.note(change(number))
    _, *found, last = await records(broker)
    assert [int(each["target"]) for each in found] == list(range(1000))
    assert last["action"] == "edge.stop"


async def test_every_record_names_the_one_before(broker: Broker, open_audit: Open) -> None:
    for _ in range(2):
        async with open_audit() as audit:
            await audit.require(change())
    found = await records(broker)
    assert [each["n"] for each in found] == list(range(1, len(found) + 1))
    assert [each["prev"] for each in found[1:]] == [each["mac"] for each in found[:-1]]


async def test_two_writers_of_one_name_make_one_chain(broker: Broker, open_audit: Open) -> None:
    async with open_audit() as one, open_audit() as other:
        await asyncio.gather(*(audit.require(change(number)) for number in range(20) for audit in (one, other)))
    found = await records(broker, "e1")
    assert [each["n"] for each in found] == list(range(1, len(found) + 1))
    assert [each["prev"] for each in found[1:]] == [each["mac"] for each in found[:-1]]
    assert sum(each["action"] == "limits.set" for each in found) == 40


async def test_without_a_stream_what_is_required_is_refused_and_the_rest_waits(
    broker: Broker, open_audit: Open
) -> None:
    async with open_audit() as audit:
        await audit.require(change(1))
        await broker.server.kill()
        with pytest.raises(ServingError) as caught:
            await audit.require(change(2))
        assert (caught.value.code, caught.value.status) == (ErrorCode.AUDIT_UNAVAILABLE, 503)
        audit.note(change(3))
        await broker.server.start()
        await until(lambda: broker.edge.is_connected)
        await audit.require(change(4))
        found = [(each["target"], each["outcome"]) for each in await records(broker) if each["action"] == "limits.set"]
    assert found[0] == ("1", "allowed")
    assert ("2", "failed") in found
    assert found[-2:] == [("3", "allowed"), ("4", "allowed")]


async def test_a_full_stream_refuses_what_is_required(broker: Broker, open_audit: Open) -> None:
    async with open_audit() as audit:
        await audit.require(change(1))
        await limit(broker, 1)
        with pytest.raises(ServingError) as caught:
            await audit.require(change(2))
        assert caught.value.code is ErrorCode.AUDIT_UNAVAILABLE
        await limit(broker, 1 << 20)
        await audit.require(change(3))
    found = [(each["target"], each["outcome"]) for each in await records(broker) if each["action"] == "limits.set"]
    assert found == [("1", "allowed"), ("2", "failed"), ("3", "allowed")]


async def limit(broker: Broker, max_bytes: int, stream: str = STREAM_AUDIT) -> None:
    """Give a stream so much room."""
    info = await broker.topology.api(f"STREAM.INFO.{stream}")
    await broker.topology.api(f"STREAM.UPDATE.{stream}", {**info["config"], "max_bytes": max_bytes})


async def test_what_does_not_fit_is_counted_and_told(
    broker: Broker, open_audit: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.audit.writer._MAX_WAITING", 10)
    lost = []
    async with open_audit(on_lost=lambda: lost.append(1)) as audit:
        await audit.require(change())
        await limit(broker, 1)
        for number in range(1000):
            audit.note(change(number))
        await limit(broker, 1 << 20)
        await until(lambda: audit.num_waiting == 0)
    found = await records(broker)
    gaps = [each["details"]["count"] for each in found if each["action"] == "audit.gap"]
    assert sum(gaps) == len(lost) == 990
    assert [each["n"] for each in found] == list(range(1, len(found) + 1))
