"""The official SDK against a real edge: answers, streams, exception classes and their fields."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import openai
import pytest

from schemas.errors import ErrorCode, ServingError
from schemas.events import FinishReason
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, READ_KEY, Edge, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, Script, ScriptedWorker
from tests.support.waiting import until

pytestmark = [pytest.mark.nats, pytest.mark.sse]

PIECES = ("Pa", "ri", "s", ".", " é", "😀")
MESSAGES: list[Any] = [{"role": "user", "content": "one two three"}]


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


async def test_async_chat_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert answer.choices[0].message.content == "one two three"
    assert answer._request_id is not None and answer.id.endswith(answer._request_id)
    stream = await client.chat.completions.create(
        model="echo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4


async def test_async_completions_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="echo", prompt=["a b", "c"])
    assert [choice.text for choice in answer.choices] == ["a b", "c"]
    texts = {0: "", 1: ""}
    async for chunk in await client.completions.create(model="echo", prompt=["a b", "c"], stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == {0: "a b", 1: "c"}
    tokens = await client.completions.create(model="echo", prompt=[5, 6])
    assert tokens.choices[0].text == "5 6"


async def test_the_sync_client_works_with_every_form_of_base_url(edge: Edge) -> None:
    def talk(suffix: str) -> tuple[str | None, str, list[str]]:
        with openai.OpenAI(base_url=edge.url + suffix, api_key=KEY, max_retries=0) as client:
            whole = client.chat.completions.create(model="echo", messages=MESSAGES)
            stream = client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            return whole.choices[0].message.content, streamed, [model.id for model in client.models.list()]

    for suffix in ("", "/", "/v1", "/v1/"):
        assert await asyncio.to_thread(talk, suffix) == ("one two three", "one two three", ["echo"])


async def test_models(client: openai.AsyncOpenAI) -> None:
    model = await client.models.retrieve("gpt-4o-mini")
    assert model.id == "echo"
    extra = model.model_extra or {}
    assert (extra["max_model_len"], extra["backends"][0]["backend"], extra["ready"]) == (2048, "echo", True)
    with pytest.raises(openai.NotFoundError) as missing:
        await client.models.retrieve("org/nope")
    assert missing.value.code == "model_not_found"


BAD_CALLS: list[tuple[dict[str, Any], type[openai.APIStatusError], str, str | None]] = [
    ({"temperature": 3}, openai.BadRequestError, "invalid_parameter", "temperature"),
    ({"n": 2}, openai.BadRequestError, "unsupported_parameter", "n"),
    ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "unknown_parameter", "temprature"),
    ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
    ({"extra_body": {"priority": 9}}, openai.PermissionDeniedError, "priority_not_allowed", "priority"),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        openai.BadRequestError,
        "unsupported_parameter",
        "tools",
    ),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_raise_the_right_class(client: openai.AsyncOpenAI, stream: bool) -> None:
    for change, kind, code, param in BAD_CALLS:
        call: dict[str, Any] = {"model": "echo", "messages": MESSAGES, "stream": stream, **change}
        with pytest.raises(kind) as refused:
            await client.chat.completions.create(**call)
        assert (refused.value.code, refused.value.param) == (code, param)
        assert refused.value.request_id


async def test_keys_raise_the_right_class(edge: Edge) -> None:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="nobody", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await client.chat.completions.create(model="echo", messages=MESSAGES)
        assert unknown.value.code == "invalid_api_key"
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=READ_KEY, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await client.chat.completions.create(model="echo", messages=MESSAGES)
        assert denied.value.code == "insufficient_scope"
        assert [model.id async for model in client.models.list()] == ["echo"]


JOURNAL_FAILURES: list[tuple[ErrorCode, type[openai.APIStatusError]]] = [
    (ErrorCode.CONTEXT_LENGTH_EXCEEDED, openai.BadRequestError),
    (ErrorCode.INTERNAL, openai.InternalServerError),
    (ErrorCode.POISONED, openai.InternalServerError),
    (ErrorCode.MODEL_LOADING, openai.InternalServerError),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_workers_failure_before_text_raises_the_right_class(
    client: openai.AsyncOpenAI, worker: ScriptedWorker, stream: bool
) -> None:
    for code, kind in JOURNAL_FAILURES:
        worker.script = _failing(code)
        with pytest.raises(kind) as failed:
            await client.chat.completions.create(model="echo", messages=MESSAGES, stream=stream)
        assert (failed.value.code, failed.value.param) == (code, "messages")


def _failing(code: ErrorCode) -> Script:
    async def fails(run: Run) -> None:
        await run.fail(ServingError(code, "no", param="messages"))

    return fails


async def test_a_failure_after_text_raises_with_its_code(client: openai.AsyncOpenAI, worker: ScriptedWorker) -> None:
    async def breaks(run: Run) -> None:
        await run.say("a")
        await run.fail(ServingError(ErrorCode.INTERNAL, "it broke"))

    worker.script = breaks
    text = ""
    with pytest.raises(openai.APIError) as failed:
        async for chunk in await client.chat.completions.create(model="echo", messages=MESSAGES, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert (text, failed.value.code) == ("a", "internal")


async def _queue_then_slow(run: Run) -> None:
    """Comes late, computes the prompt for a while, then talks with pauses."""
    for percent in (10, 50, 100):
        await run.claim.progress(percent, 100)
        await asyncio.sleep(0.15)
    for piece in PIECES:
        await run.say(piece)
        await asyncio.sleep(0.15)
    await run.finish(reason=FinishReason.STOP)


class Listener:
    """The bytes of a stream as they come. `script` goes on only once what it said, and a pause, was heard."""

    def __init__(self) -> None:
        self.heard = ""

    async def script(self, run: Run) -> None:
        for percent in (10, 50, 100):
            await run.claim.progress(percent, 100)
            await self._another(f": prefill {percent}%\n")
        for piece in PIECES:
            await run.say(piece)
            await self._another(": ping\n")
        await run.finish(reason=FinishReason.STOP)

    async def _another(self, line: str) -> None:
        before = self.heard.count(line)
        await until(lambda: self.heard.count(line) > before)


@pytest.mark.parametrize("queue_updates", ["on", "off"])
async def test_a_stream_full_of_comments_and_pauses_is_read_whole(broker: Broker, queue_updates: str) -> None:
    await put_model(broker)
    config = replace(CONFIG, comment_interval_s=0.1, status_hold_s=0.1)
    async with (
        running_worker(broker.worker, _queue_then_slow) as worker,
        running_edge(broker, config) as edge,
        openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        await until_served(edge)
        stream = await client.chat.completions.create(
            model="echo", messages=MESSAGES, stream=True, extra_headers={"X-InferFlux-Queue-Updates": queue_updates}
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Paris. é😀"
        sync = await asyncio.to_thread(_read_sync, edge.url)
        assert sync == "Paris. é😀"
        listener = Listener()
        worker.script = listener.script
        async with edge.client.stream(
            "POST",
            "/v1/chat/completions",
            json={"messages": MESSAGES, "stream": True},
            headers={"X-InferFlux-Queue-Updates": queue_updates},
        ) as raw:
            async for text in raw.aiter_text():
                listener.heard += text
        assert_no_comment_before_a_blank_line(listener.heard)
        assert len(worker.runs) == 3


def _read_sync(url: str) -> str:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        stream = client.chat.completions.create(model="echo", messages=MESSAGES, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def assert_no_comment_before_a_blank_line(body: str) -> None:
    lines = body.split("\n")
    for line, following in pairwise(lines):
        assert not (line.startswith(":") and following == "")


async def test_a_waiting_stream_says_where_it_stands(broker: Broker) -> None:
    await put_model(broker)
    release = asyncio.Event()

    async def waits(run: Run) -> None:
        await release.wait()
        await run.finish("x")

    config = replace(CONFIG, comment_interval_s=0.05)
    async with running_worker(broker.worker, waits, slots=1) as worker, running_edge(broker, config) as edge:
        await until_served(edge)
        body = {"messages": MESSAGES, "stream": True}
        first = asyncio.create_task(edge.post(body))
        await worker.started.wait()
        async with edge.client.stream(
            "POST", "/chat/completions", json=body, headers={"X-InferFlux-Queue-Updates": "on"}
        ) as waiting:
            assert waiting.status_code == 200
            lines = waiting.aiter_lines()
            assert (await anext(lines)).startswith(": queued position=1 eta_s=")
            release.set()
            rest = [line async for line in lines]
            assert rest[-2] == "data: [DONE]"
        assert (await first).status_code == 200


async def test_the_sdk_retries_what_can_be_retried(edge: Edge, worker: ScriptedWorker) -> None:
    attempts: list[str] = []

    async def second_time_lucky(run: Run) -> None:
        attempts.append(run.request.request_id)
        if len(attempts) == 1:
            await run.fail(ServingError(ErrorCode.INTERNAL, "once", retryable=True))
        else:
            await run.finish("ok")

    worker.script = second_time_lucky
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=2) as client:
        answer = await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert answer.choices[0].message.content == "ok"
    assert len(set(attempts)) == 2
    attempts.clear()

    async def hopeless(run: Run) -> None:
        attempts.append(run.request.request_id)
        await run.fail(ServingError(ErrorCode.POISONED, "never"))

    worker.script = hopeless
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="echo", messages=MESSAGES)
    assert len(attempts) == 1
