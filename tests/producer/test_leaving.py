"""Clients that go away: whenever they do, the work ends with them, unless they asked for it to go on."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from broker.journal import JournalHub
from broker.records import read_records
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS
from schemas.codec import decode_event
from schemas.events import Cancelled, Event, Failed, Finished
from tests.conftest import Broker
from tests.producer.conftest import (
    CONFIG,
    KEY,
    OTHER_KEY,
    Edge,
    chat,
    put_model,
    running_edge,
    running_worker,
    until_served,
)
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.support.waiting import until

pytestmark = pytest.mark.nats


class RawClient:
    """One HTTP call over a plain socket, so that it can be torn off anywhere."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def __aenter__(self) -> "RawClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @classmethod
    async def call(cls, edge: Edge, body: dict[str, Any], **headers: str) -> "RawClient":
        return await cls.connect(edge.address.port, body, **headers)

    @classmethod
    async def connect(cls, port: int, body: dict[str, Any], **headers: str) -> "RawClient":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(cls.request(body, **headers))
        await writer.drain()
        return cls(reader, writer)

    @staticmethod
    def request(body: dict[str, Any], **headers: str) -> bytes:
        payload = json.dumps(body).encode()
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {KEY}",
            "Content-Type: application/json",
            f"Content-Length: {len(payload)}",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload

    async def read_until(self, text: bytes) -> bytes:
        return await self.reader.readuntil(text)

    def kill(self) -> None:
        """As a killed process does: the connection is reset."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """As a program that ends orderly."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def events_until(broker: Broker, wanted: type[Event] | Event) -> list[Event]:
    """All journal records of the test, once `wanted`, or one of that kind, is among them."""

    def is_wanted(event: Event) -> bool:
        return isinstance(event, wanted) if isinstance(wanted, type) else event == wanted

    while True:
        records = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.>", is_complete=lambda _: True)
        events = [decode_event(record.payload) for record in records]
        if any(is_wanted(event) for event in events):
            return events
        await asyncio.sleep(0.01)


async def num_queued(broker: Broker) -> int:
    info = await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
    count: int = info["state"]["messages"]
    return count


async def until_settled(broker: Broker) -> None:
    async def is_empty() -> bool:
        return await num_queued(broker) == 0

    await until(is_empty)


async def until_queued(broker: Broker, number: int = 1) -> None:
    async def is_queued() -> bool:
        return await num_queued(broker) >= number

    await until(is_queued)


def make_script(*, says: bool) -> Callable[[Run], Any]:
    async def script(run: Run) -> None:
        if says:
            await run.say("hello")
        await run.cancelled.wait()
        # Fenced by the edge's record: nothing more is said, and the queue entry is settled.
        assert not await run.claim.checkpoint()
        await run.lease.ack()

    return script


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("says", [False, True])
@pytest.mark.parametrize("orderly", [False, True])
async def test_a_client_that_leaves_ends_its_request(
    edge: Edge, worker: ScriptedWorker, broker: Broker, stream: bool, says: bool, orderly: bool
) -> None:
    worker.script = make_script(says=says)
    client = await RawClient.call(edge, chat(stream=stream))
    await worker.started.wait()
    if stream and says:
        await client.read_until(b"hello")
    if orderly:
        await client.close()
    else:
        client.kill()
    await events_until(broker, Cancelled("client_left"))
    await worker.runs[0].cancelled.wait()
    await until_settled(broker)
    assert (await edge.client.get("/healthz")).status_code == 200


async def test_a_client_that_leaves_while_queued_takes_its_request_out(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    async with running_edge(broker) as edge:
        for stream in (False, True):
            client = await RawClient.call(edge, chat(stream=stream))
            await until_queued(broker)
            client.kill()
            await until_settled(broker)
        await events_until(broker, Cancelled)
        async with running_worker(broker.worker) as worker:
            await until_served(edge)
            assert (await edge.post(chat("next"))).status_code == 200
            assert [run.prompt_text for run in worker.runs] == ["next"]


async def test_a_client_that_leaves_behind_the_first_comment_is_seen(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    async with running_edge(broker) as edge:
        client = await RawClient.call(edge, chat(stream=True), X_InferFlux_Queue_Updates="on")
        await client.read_until(b": queued")
        client.kill()
        await events_until(broker, Cancelled)
        await until_settled(broker)


async def test_work_goes_on_when_asked(edge: Edge, worker: ScriptedWorker, broker: Broker) -> None:
    release = asyncio.Event()

    async def script(run: Run) -> None:
        await run.say("a")
        await release.wait()
        await run.finish("b")

    worker.script = script
    client = await RawClient.call(edge, chat(stream=True), X_InferFlux_On_Disconnect="continue")
    await client.read_until(b'"content":"a"')
    client.kill()
    release.set()
    events = await events_until(broker, Finished)
    assert not any(isinstance(event, Cancelled) for event in events)
    await until_settled(broker)


async def test_the_owner_can_cancel_and_a_stranger_cannot(edge: Edge, worker: ScriptedWorker, broker: Broker) -> None:
    worker.script = make_script(says=False)
    call = asyncio.create_task(edge.post(chat()))
    await worker.started.wait()
    request_id = worker.runs[0].request.request_id
    stranger = await edge.client.delete(f"/v1/requests/{request_id}", headers={"authorization": f"Bearer {OTHER_KEY}"})
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (404, "request_not_found")
    for unknown in ("nope", "%2e%2e", "a.b", "x" * 200):
        assert (await edge.client.delete(f"/v1/requests/{unknown}")).status_code == 404
    own = await edge.client.delete(f"/v1/requests/chatcmpl-{request_id}")
    assert own.json() == {"id": request_id, "object": "request", "cancelled": True}
    answer = await call
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "cancelled")
    # Else an SDK would do by itself what somebody has just stopped.
    assert answer.headers["x-should-retry"] == "false"
    await until_settled(broker)
    again = await edge.client.delete(f"/requests/{request_id}")
    assert again.json()["cancelled"] is False


async def test_a_cancellation_that_is_not_recorded_is_no_success(
    edge: Edge, worker: ScriptedWorker, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.edge.lifecycle.RECORD_S", 0.5)
    worker.script = make_script(says=False)
    call = asyncio.create_task(edge.post(chat()))
    await worker.started.wait()
    path = f"/v1/requests/{worker.runs[0].request.request_id}"
    await broker.server.kill()
    answer = await edge.client.delete(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable")
    assert not call.done()
    await broker.server.start()
    assert (await edge.client.delete(path)).json()["cancelled"] is True
    assert (await call).json()["error"]["code"] == "cancelled"


async def test_what_has_ended_by_the_time_it_is_cancelled_was_not_cancelled(
    edge: Edge, worker: ScriptedWorker, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends_first(hub: JournalHub, edge_id: str, request_id: str, event: Cancelled | Failed, **_: Any) -> None:
        await worker.runs[0].finish("late")
        await end(hub, edge_id, request_id, event)

    end = JournalHub.end

    async def waits(run: Run) -> None:
        await run.cancelled.wait()

    monkeypatch.setattr(JournalHub, "end", ends_first)
    worker.script = waits
    call = asyncio.create_task(edge.post(chat()))
    await worker.started.wait()
    cancelling = edge.client.delete(f"/v1/requests/{worker.runs[0].request.request_id}")
    assert (await cancelling).json()["cancelled"] is False
    assert (await call).json()["choices"][0]["message"]["content"] == "late"


async def test_a_request_can_be_cancelled_through_another_edge(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    worker.script = make_script(says=True)
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
        call = asyncio.create_task(edge.post(chat()))
        await worker.started.wait()
        request_id = worker.runs[0].request.request_id
        assert (await other.client.delete(f"/v1/requests/{request_id}")).json()["cancelled"] is True
        assert (await call).json()["error"]["code"] == "cancelled"
    await until_settled(broker)


async def test_a_queued_request_cancelled_through_another_edge_leaves_the_queue(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    config = replace(CONFIG, edge_id="e2")
    async with running_edge(broker) as edge, running_edge(broker, config) as other:
        async with await RawClient.call(edge, chat(stream=True), X_InferFlux_Queue_Updates="on") as client:
            head = await client.read_until(b"\r\n\r\n")
            request_id = head.lower().partition(b"\r\nx-request-id: ")[2].partition(b"\r\n")[0].decode()
            await until_queued(broker)
            assert (await other.client.delete(f"/v1/requests/{request_id}")).json()["cancelled"] is True
            assert b'"code":"cancelled"' in await client.read_until(b"}}\n\n")
        await until_settled(broker)
