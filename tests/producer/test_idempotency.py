"""An Idempotency-Key names one execution, whoever asks and through whichever edge."""

import asyncio
from dataclasses import replace

import pytest

from broker.records import read_records
from broker.subjects import STREAM_TOKENS, journal
from producer.edge.ids import derive_request_id
from schemas.codec import decode_event, encode_event
from schemas.errors import ErrorCode, ServingError
from schemas.events import Accepted
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, OTHER_KEY, Edge, chat, running_edge, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import RawClient, until_settled
from tests.producer.test_stream import events_of, text_of

pytestmark = pytest.mark.nats


class Gate:
    """A script that says "a", waits, and ends with "b"."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, run: Run) -> None:
        await run.say("a")
        await self.open.wait()
        await run.finish("b")


async def test_two_calls_with_one_key_share_one_execution(edge: Edge, worker: ScriptedWorker) -> None:
    gate = worker.script = Gate()
    first = asyncio.create_task(edge.post(chat(stream=True), Idempotency_Key="k"))
    await worker.started.wait()
    second = asyncio.create_task(edge.post(chat(stream=True), Idempotency_Key="k"))
    await asyncio.sleep(0.05)
    gate.open.set()
    answers = [await first, await second]
    assert [text_of(events_of(answer.content)) for answer in answers] == ["ab", "ab"]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 1
    assert len(worker.runs) == 1


async def test_calls_at_the_same_moment_share_one_execution(edge: Edge, worker: ScriptedWorker) -> None:
    answers = await asyncio.gather(*(edge.post(chat("a b"), Idempotency_Key="k") for _ in range(5)))
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {"a b"}
    assert len(worker.runs) == 1


async def test_a_finished_answer_is_given_again(edge: Edge, worker: ScriptedWorker) -> None:
    first = await edge.post(chat("a b"), Idempotency_Key="k")
    second = await edge.post(chat("a b"), Idempotency_Key="k")
    assert first.json() == second.json()
    assert len(worker.runs) == 1


async def test_another_body_is_422_and_another_owner_is_another_request(edge: Edge, worker: ScriptedWorker) -> None:
    gate = worker.script = Gate()
    first = asyncio.create_task(edge.post(chat("one"), Idempotency_Key="k"))
    await worker.started.wait()
    mismatch = await edge.post(chat("two"), Idempotency_Key="k")
    assert (mismatch.status_code, mismatch.json()["error"]["code"]) == (422, "idempotency_mismatch")
    assert mismatch.headers["x-should-retry"] == "false"
    gate.open.set()
    other = await edge.post(chat("two"), Idempotency_Key="k", authorization=f"Bearer {OTHER_KEY}")
    assert other.status_code == 200
    assert (await first).status_code == 200
    assert (await edge.post(chat("two"), Idempotency_Key="k")).status_code == 422


async def test_a_client_that_lost_its_connection_joins_again(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    gate = worker.script = Gate()
    client = await RawClient.call(edge, chat(stream=True), Idempotency_Key="k")
    await client.read_until(b'"content":"a"')
    client.kill()
    again = asyncio.create_task(edge.post(chat(stream=True), Idempotency_Key="k"))
    await asyncio.sleep(0.05)
    gate.open.set()
    # RawClient and the other one write the same JSON differently, so only the status tells that it was joined.
    assert (await again).status_code in (200, 422)
    await until_settled(broker)
    assert len(worker.runs) == 1


@pytest.mark.parametrize("prompts", [1, 3])
async def test_a_key_joins_through_another_edge(
    edge: Edge, worker: ScriptedWorker, broker: Broker, prompts: int
) -> None:
    gate = worker.script = Gate()
    body = {"prompt": ["p"] * prompts, "stream": True, "stream_options": {"include_usage": True}}
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
        await until_served(other)
        first = asyncio.create_task(edge.post(body, "/v1/completions", Idempotency_Key="k"))
        await worker.started.wait()
        second = asyncio.create_task(other.post(body, "/v1/completions", Idempotency_Key="k"))
        await asyncio.sleep(0.1)
        gate.open.set()
        answers = [events_of((await each).content) for each in (first, second)]
        late = events_of((await other.post(body, "/v1/completions", Idempotency_Key="k")).content)
    for index in range(prompts):
        assert {text_of(answer, index) for answer in (*answers, late)} == {"ab"}
    assert answers[0][-2][1]["usage"] == answers[1][-2][1]["usage"] == late[-2][1]["usage"]
    assert answers[0][0][1]["id"] == late[0][1]["id"]
    assert len(worker.runs) == prompts


async def test_one_key_at_two_edges_at_the_same_moment_runs_once(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
        await until_served(other)
        for attempt in range(5):
            worker.runs.clear()
            answers = await asyncio.gather(
                *(each.post(chat("a b"), Idempotency_Key=f"k{attempt}") for each in (edge, other, edge, other))
            )
            assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {"a b"}
            assert len(worker.runs) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_whose_edge_died_before_it_was_queued_is_queued_by_who_joins_it(
    edge: Edge, worker: ScriptedWorker, broker: Broker, stream: bool
) -> None:
    """All that the dead edge left is the head of a journal."""
    body = chat("a b", stream=stream)
    await edge.post(body, Idempotency_Key="like this")
    heads = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.*.*.head", is_complete=bool)
    head = decode_event(heads[0].payload)
    assert isinstance(head, Accepted)
    request_id = derive_request_id(head.owner, "k", 0)
    orphan = head._replace(request_id=request_id, idempotency_key="k")
    await broker.edge.publish_acked(journal("dead", request_id).head, encode_event(orphan))
    answer = await edge.post(body, Idempotency_Key="k")
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == request_id
    text = text_of(events_of(answer.content)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert text == "a b"
    await until_settled(broker)


async def test_a_cancelled_execution_is_done_again(edge: Edge, worker: ScriptedWorker) -> None:
    async def waits(run: Run) -> None:
        await run.cancelled.wait()
        await run.lease.ack()

    worker.script = waits
    first = asyncio.create_task(edge.post(chat("a"), Idempotency_Key="k"))
    await worker.started.wait()
    await edge.client.delete(f"/v1/requests/{worker.runs[0].request.request_id}")
    assert (await first).json()["error"]["code"] == "cancelled"
    gate = worker.script = Gate()
    gate.open.set()
    assert (await edge.post(chat("a"), Idempotency_Key="k")).json()["choices"][0]["message"]["content"] == "ab"


async def test_a_failure_worth_another_try_is_tried_again(edge: Edge, worker: ScriptedWorker) -> None:
    async def fails(run: Run) -> None:
        retryable = len(worker.runs) == 1
        await run.fail(ServingError(ErrorCode.INTERNAL, "no", retryable=retryable))

    worker.script = fails
    for _ in range(3):
        assert (await edge.post(chat("a"), Idempotency_Key="k")).status_code == 500
    assert len(worker.runs) == 2


async def test_a_bad_key_is_refused(edge: Edge) -> None:
    for key in ("", "x" * 256):
        answer = await edge.post(chat(), Idempotency_Key=key)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
