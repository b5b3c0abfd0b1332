"""X-InferFlux-Journal: off. The answer is the same; no stream has any of it, and only its own edge can give it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from broker import live_link
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS
from schemas.codec import decode_event
from schemas.events import Accepted, Failed, FinishReason
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_idempotency import Gate
from tests.producer.test_leaving import RawClient, until_settled
from tests.producer.test_recovery import continues, until_running
from tests.producer.test_stream import events_of, text_of
from tests.support.waiting import until

pytestmark = pytest.mark.nats
OFF = {"X_InferFlux_Journal": "off"}


@pytest.fixture
async def other(broker: Broker, edge: Edge) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as second:
        await until_served(second)
        yield second


async def stored(broker: Broker) -> bytes:
    """Everything in the journals."""
    records = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.>", is_complete=lambda _: True)
    return b"\n".join(record.payload for record in records)


async def accepted(broker: Broker) -> list[Accepted]:
    records = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.*.*.head", is_complete=bool)
    events = [decode_event(record.payload) for record in records]
    return [event for event in events if isinstance(event, Accepted)]


@pytest.mark.parametrize("is_off", [True, False])
async def test_the_answer_is_the_same_and_no_stream_has_it(
    edge: Edge, worker: ScriptedWorker, broker: Broker, is_off: bool
) -> None:
    async def says(run: Run) -> None:
        await run.say("a mar", "ker te", "xt")
        await run.claim.checkpoint()
        await run.finish(" it is", reason=FinishReason.LENGTH)

    worker.script = says
    headers = OFF if is_off else {}
    # A key keeps the journals, so that they can be searched.
    streamed = events_of((await edge.post(chat("s", stream=True), Idempotency_Key="s", **headers)).content)
    whole = (await edge.post(chat("w"), Idempotency_Key="w", **headers)).json()
    assert text_of(streamed) == whole["choices"][0]["message"]["content"] == "a marker text it is"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 4
    assert (b"ker te" in await stored(broker)) == (b" it is" in await stored(broker)) == (not is_off)
    assert {event.options["journal"] for event in await accepted(broker)} == {"off" if is_off else "on"}
    await until_settled(broker)


async def test_each_of_a_list_of_prompts_gets_its_own_answer(edge: Edge) -> None:
    body = {"prompt": ["a b c", "d e", "f"]}
    whole = (await edge.post(body, "/v1/completions", **OFF)).json()
    assert [choice["text"] for choice in whole["choices"]] == ["a b c", "d e", "f"]
    streamed = events_of((await edge.post({**body, "stream": True}, "/v1/completions", **OFF)).content)
    assert [text_of(streamed, index) for index in range(3)] == ["a b c", "d e", "f"]


async def test_the_work_of_a_dead_worker_goes_on_where_the_client_is(broker: Broker) -> None:
    await put_model(broker)

    async def falls_silent(run: Run) -> None:
        await run.say("<0>", "<1>", "<2>")
        await asyncio.Event().wait()

    doomed = ScriptedWorker(await broker.server.connect(Role.WORKER, "doomed"), falls_silent, worker_id="w1")
    await doomed.start()
    async with running_edge(broker) as edge:
        await until_served(edge)
        async with await RawClient.call(edge, chat(stream=True), **OFF) as client:
            await client.read_until(b"<2>")
            async with running_worker(broker.worker, continues, worker_id="w2") as heir:
                await doomed.die()
                rest = await client.read_until(b"[DONE]")
                assert b"<3>" in rest and b"<7>" in rest and b"<2>" not in rest
                assert len(heir.runs) == 1
    await doomed.close()


async def test_a_restart_of_the_broker_costs_nothing(edge: Edge, worker: ScriptedWorker, broker: Broker) -> None:
    release = asyncio.Event()

    async def waits(run: Run) -> None:
        # A broker that was killed may have forgotten the delivery, and there is a second run.
        await run.say(*"a"[len(run.claim.token_ids) :])
        await release.wait()
        await run.finish(*"ab"[len(run.claim.token_ids) :])

    worker.script = waits
    calls = [asyncio.create_task(edge.post(chat(stream=stream), **OFF)) for stream in (False, True)]
    await until_running(worker, 2)
    await broker.server.restart()
    release.set()
    whole, streamed = await asyncio.gather(*calls)
    assert whole.json()["choices"][0]["message"]["content"] == "ab"
    assert text_of(events_of(streamed.content)) == "ab"


async def test_a_key_joins_at_the_edge_that_took_it_running_or_ended(edge: Edge, worker: ScriptedWorker) -> None:
    gate = worker.script = Gate()
    first = asyncio.create_task(edge.post(chat(stream=True), Idempotency_Key="k", **OFF))
    await worker.started.wait()
    second = asyncio.create_task(edge.post(chat(stream=True), Idempotency_Key="k", **OFF))
    await asyncio.sleep(0.05)
    gate.open.set()
    third = edge.post(chat(stream=True), Idempotency_Key="k", **OFF)
    answers = [await first, await second, await third]
    assert [text_of(events_of(answer.content)) for answer in answers] == ["ab"] * 3
    assert len({answer.headers["x-request-id"] for answer in answers}) == 1
    assert len(worker.runs) == 1


async def test_a_key_says_elsewhere_that_it_cannot_be_joined_and_is_served_anew_when_it_has_ended(
    edge: Edge, other: Edge, worker: ScriptedWorker
) -> None:
    gate = worker.script = Gate()
    first = asyncio.create_task(edge.post(chat(), Idempotency_Key="k", **OFF))
    await worker.started.wait()
    refused = await other.post(chat(), Idempotency_Key="k", **OFF)
    assert (refused.status_code, refused.json()["error"]["code"]) == (410, "journal_expired")
    assert "not journaled" in refused.json()["error"]["message"]
    gate.open.set()
    assert (await first).status_code == 200
    again = await other.post(chat(), Idempotency_Key="k", **OFF)
    assert again.json()["choices"][0]["message"]["content"] == "ab"
    assert again.headers["x-request-id"] != (await first).headers["x-request-id"]
    assert len(worker.runs) == 2


async def test_work_goes_on_for_a_client_who_comes_back_after_its_end(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    gate = worker.script = Gate()
    client = await RawClient.call(edge, chat(stream=True), Idempotency_Key="k", **OFF)
    await client.read_until(b'"content":"a"')
    client.kill()
    gate.open.set()
    await until_settled(broker)
    async with await RawClient.call(edge, chat(stream=True), Idempotency_Key="k", **OFF) as back:
        answer = await back.read_until(b"[DONE]")
    assert b'"content":"a"' in answer and b'"content":"b"' in answer
    assert len(worker.runs) == 1


async def test_the_owner_can_cancel_through_another_edge(edge: Edge, other: Edge, worker: ScriptedWorker) -> None:
    async def waits(run: Run) -> None:
        await run.cancelled.wait()
        await run.lease.ack()

    worker.script = waits
    call = asyncio.create_task(edge.post(chat(), **OFF))
    await worker.started.wait()
    answer = await other.client.delete(f"/v1/requests/{worker.runs[0].request.request_id}")
    assert answer.json()["cancelled"] is True
    assert (await call).json()["error"]["code"] == "cancelled"


async def test_with_its_edge_the_work_ends_and_a_key_is_served_anew(
    broker: Broker, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_link, "GRACE_S", 0.2)
    ends: list[bool] = []

    async def goes_on(run: Run) -> None:
        async def is_fenced() -> bool:
            return not await run.claim.checkpoint()

        await run.say("a")
        await until(is_fenced)
        ends.append(run.claim.is_unheard)

    worker.script = goes_on
    async with running_edge(broker, replace(CONFIG, drain_timeout_s=0.2)) as edge:
        await until_served(edge)
        async with await RawClient.call(edge, chat(stream=True), Idempotency_Key="k", **OFF) as client:
            await client.read_until(b'"content":"a"')
            edge.stop.set()
            await edge.task
            assert b'"error"' in await client.reader.read()
    await until_settled(broker)
    await until(lambda: ends == [True])
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
        await until_served(other)
        gate = worker.script = Gate()
        gate.open.set()
        async with await RawClient.call(other, chat(stream=True), Idempotency_Key="k", **OFF) as client:
            assert b'"content":"b"' in await client.read_until(b"[DONE]")
    records = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.e1.>", is_complete=bool)
    failed = [event for event in map(decode_event, (record.payload for record in records)) if isinstance(event, Failed)]
    assert [(event.code, event.retryable) for event in failed] == [("broker_unavailable", True)]
