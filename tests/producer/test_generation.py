"""Generation calls end to end on a real broker: answers, streams, headers, refusals."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.journal import PURGED
from broker.records import read_records
from broker.subjects import STREAM_TOKENS, journal
from schemas.codec import decode_event
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import until_queued
from tests.producer.test_stream import events_of, text_of

pytestmark = pytest.mark.nats


async def test_a_chat_is_answered_whole(edge: Edge) -> None:
    answer = await edge.post(chat("one two three"))
    body = answer.json()
    assert answer.status_code == 200
    assert body["choices"][0]["message"]["content"] == "one two three"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 7
    assert body["id"] == f"chatcmpl-{answer.headers['x-request-id']}"
    assert body["system_fingerprint"] == "fp_test"
    assert (body["service_tier"], answer.headers["x-inferflux-priority"]) == ("default", "normal")


async def test_a_chat_is_streamed_with_the_text_of_every_token(edge: Edge) -> None:
    answer = await edge.post(chat("one two three", stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.content)
    assert text_of(events) == "one two three"
    assert events[-1][1] == "[DONE]"
    assert events[-2][1]["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_give_one_answer_with_a_choice_each(edge: Edge, stream: bool) -> None:
    answer = await edge.post({"prompt": ["a b", "c d e", "f"], "stream": stream}, "/v1/completions")
    if stream:
        events = events_of(answer.content)
        assert [text_of(events, index) for index in range(3)] == ["a b", "c d e", "f"]
    else:
        assert [choice["text"] for choice in answer.json()["choices"]] == ["a b", "c d e", "f"]
        assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2]


async def test_what_was_asked_arrives_at_the_worker(edge: Edge, worker: ScriptedWorker) -> None:
    await edge.post(
        chat("hi", seed=5, temperature=0.5, stop=["x"], logit_bias={"7": -1}, top_k=-1, user="me", max_tokens=9)
    )
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    await edge.post({"prompt": [1, 2, 3], "priority": -3}, "/completions", traceparent=trace)
    await edge.post({"prompt": "x"}, "/completions", traceparent="nonsense")
    first, second, third = (run.request for run in worker.runs)
    assert (second.traceparent, third.traceparent) == (trace, None)
    assert (first.sampling.seed, first.sampling.temperature, first.sampling.stop) == (5, 0.5, ("x",))
    assert (first.sampling.logit_bias, first.sampling.top_k, first.sampling.max_tokens) == (((7, -1.0),), 0, 9)
    assert first.identity.owner == "alice"
    assert "me" not in first.labels.values() and set(first.labels) == {"user"}
    assert second.priority is PriorityClass.LOW
    assert second.prompt.kind == "tokens"


async def test_a_failure_before_the_first_token_is_a_real_status(edge: Edge, worker: ScriptedWorker) -> None:
    async def too_long(run: Run) -> None:
        await run.fail(ServingError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "too long", param="messages"))

    worker.script = too_long
    for stream in (False, True):
        answer = await edge.post(chat(stream=stream))
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


async def test_a_failure_after_the_first_token_is_an_error_event_without_done(
    edge: Edge, worker: ScriptedWorker
) -> None:
    async def breaks(run: Run) -> None:
        await run.say("a", "b")
        await run.fail(ServingError(ErrorCode.POISONED, "it broke"))

    worker.script = breaks
    events = events_of((await edge.post(chat(stream=True))).content)
    assert text_of(events[:-1]) == "ab"
    assert events[-1][1]["error"]["code"] == "poisoned"
    whole = await edge.post(chat())
    assert (whole.status_code, whole.headers["x-should-retry"]) == (500, "false")


async def test_one_failed_prompt_of_several_cancels_the_others(edge: Edge, worker: ScriptedWorker) -> None:
    async def fails_on_b(run: Run) -> None:
        if run.prompt_text == "b":
            await run.fail(ServingError(ErrorCode.INTERNAL, "it broke"))
        else:
            await run.cancelled.wait()

    worker.script = fails_on_b
    answer = await edge.post({"prompt": ["a", "b", "c"]}, "/v1/completions")
    assert answer.json()["error"]["code"] == "internal"
    for run in worker.runs:
        if run.prompt_text != "b":
            await run.cancelled.wait()


async def test_a_deadline_ends_queued_and_running_work_with_504(edge: Edge, worker: ScriptedWorker) -> None:
    async def never(run: Run) -> None:
        await run.cancelled.wait()

    worker.script = never
    answer = await edge.post(chat(timeout=0.2))
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    await worker.runs[0].cancelled.wait()
    sooner = await edge.post(chat(timeout=60), X_Request_Timeout="0.2")
    assert sooner.status_code == 504


async def test_a_delivered_journal_is_dropped(edge: Edge, broker: Broker) -> None:
    request_id = (await edge.post(chat())).headers["x-request-id"]
    while True:
        records = await read_records(
            broker.edge, STREAM_TOKENS, journal("e1", request_id).all, is_complete=lambda _: True
        )
        if len(records) == 1:
            break
        await asyncio.sleep(0.01)
    assert decode_event(records[0].payload) == Cancelled(PURGED)


async def test_an_unknown_model_is_404_and_an_alias_is_served(edge: Edge) -> None:
    answer = await edge.post(chat() | {"model": "nope"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert (await edge.post(chat() | {"model": "gpt-4o-mini"})).json()["model"] == "echo"
    assert (await edge.post(chat() | {"model": "default"})).json()["model"] == "echo"


async def test_a_priority_above_the_ceiling_is_403(edge: Edge, worker: ScriptedWorker) -> None:
    for body, param in ((chat(priority=5), "priority"), (chat(service_tier="priority"), "service_tier")):
        answer = await edge.post(body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (403, param)
    answer = await edge.post(chat(priority=10), authorization=f"Bearer {ADMIN_KEY}")
    assert (answer.json()["service_tier"], answer.headers["x-inferflux-priority"]) == ("priority", "high")
    assert worker.runs[-1].request.priority is PriorityClass.HIGH


async def test_a_prompt_that_cannot_fit_is_refused_at_the_edge(edge: Edge, worker: ScriptedWorker) -> None:
    for body, path in (
        (chat("x" * 8 * 2048), "/v1/chat/completions"),
        ({"prompt": [1] * 2048}, "/v1/completions"),
    ):
        answer = await edge.post(body, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert worker.runs == []


async def test_a_model_without_a_template_takes_no_chat(broker: Broker) -> None:
    await put_model(broker)
    async with running_worker(broker.worker, has_chat_template=False), running_edge(broker) as edge:
        await until_served(edge)
        answer = await edge.post(chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_chat_template")
        assert (await edge.post({"prompt": "a"}, "/completions")).status_code == 200


async def test_without_a_worker_a_model_refuses_or_queues_as_it_says(broker: Broker) -> None:
    await put_model(broker)
    async with running_edge(broker) as edge:
        answer = await edge.post(chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
        assert int(answer.headers["retry-after"]) >= 1
        ready = await edge.client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "model_loading")
        await put_model(broker, no_worker="queue")
        waiting = asyncio.create_task(edge.post(chat("late", timeout=20)))
        async with running_worker(broker.worker):
            while (await waiting).status_code == 503:
                waiting = asyncio.create_task(edge.post(chat("late", timeout=20)))
            assert waiting.result().json()["choices"][0]["message"]["content"] == "late"


async def test_a_full_queue_is_429_with_an_honest_retry_after(broker: Broker) -> None:
    await put_model(broker, queue_max=1)

    async def never(run: Run) -> None:
        await run.cancelled.wait()

    async with running_worker(broker.worker, never, slots=1) as worker, running_edge(broker) as edge:
        await until_served(edge)

        async def admitted() -> Any:
            # Until the edge has seen that the first one runs, it counts it among those that wait.
            while (answer := await edge.post(chat(timeout=3))).status_code == 429:
                pass
            return answer

        calls = [asyncio.create_task(edge.post(chat(timeout=5)))]
        await worker.started.wait()
        calls.append(asyncio.create_task(admitted()))
        await until_queued(broker, 2)
        refused = await edge.post(chat())
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert {(await call).status_code for call in calls} == {504}


async def test_calls_beyond_what_one_edge_holds_are_429(broker: Broker) -> None:
    await put_model(broker)

    async def never(run: Run) -> None:
        await run.cancelled.wait()

    config = replace(CONFIG, max_concurrent=1)
    async with running_worker(broker.worker, never) as worker, running_edge(broker, config) as edge:
        await until_served(edge)
        first = asyncio.create_task(edge.post(chat(timeout=2)))
        await worker.started.wait()
        assert (await edge.post(chat())).status_code == 429
        assert (await first).status_code == 504


async def test_a_large_prompt_is_claim_checked(broker: Broker) -> None:
    await put_model(broker)
    async with running_worker(broker.worker, context=10**6), running_edge(broker) as edge:
        await until_served(edge)
        text = "x" * 600_000
        answer = await edge.post(chat(text))
        assert answer.json()["choices"][0]["message"]["content"] == text
