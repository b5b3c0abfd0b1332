"""Files and batches through the official SDK, on a real edge that drains them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.producer.conftest import KEY, Edge
from tests.support.waiting import until

pytestmark = pytest.mark.nats

CHAT = "/v1/chat/completions"


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def line(name: str, text: str = "one two", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": {"model": "echo", "messages": messages, **body}}


def as_file(*lines: Any) -> bytes:
    return b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines)


async def upload(client: openai.AsyncOpenAI, *lines: Any) -> openai.types.FileObject:
    return await client.files.create(file=("lines.jsonl", as_file(*lines)), purpose="batch")


async def create(client: openai.AsyncOpenAI, *lines: Any, **more: Any) -> openai.types.Batch:
    file = await upload(client, *lines)
    return await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more)


async def until_status(client: openai.AsyncOpenAI, batch_id: str, *wanted: str) -> openai.types.Batch:
    found: list[openai.types.Batch] = []

    async def is_there() -> bool:
        found.append(await client.batches.retrieve(batch_id))
        return found[-1].status in wanted

    await until(is_there, every_s=0.05)
    return found[-1]


async def content(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(each) for each in (await client.files.content(file_id)).text.splitlines()]


async def test_a_batch_from_its_file_to_its_output(client: openai.AsyncOpenAI) -> None:
    """Of thirty lines every tenth asks for what there is not."""
    lines = [line(f"n{n}", f"text {n}", **({"temperature": 7} if n % 10 == 0 else {})) for n in range(30)]
    created = await create(client, *lines, metadata={"run": "night"})
    assert created.errors is None and created.request_counts is not None
    assert (created.request_counts.total, created.metadata) == (30, {"run": "night"})
    done = await until_status(client, created.id, "completed", "failed")
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (27, 3)
    assert done.completed_at is not None and done.completed_at >= done.created_at
    answers = {each["custom_id"]: each for each in await content(client, done.output_file_id)}
    assert len(answers) == 27
    for name, answer in answers.items():
        assert answer["error"] is None and answer["response"]["status_code"] == 200
        assert answer["response"]["body"]["choices"][0]["message"]["content"] == f"text {name[1:]}"
    failures = await content(client, done.error_file_id)
    assert {each["custom_id"] for each in failures} == {"n0", "n10", "n20"}
    assert {each["response"]["status_code"] for each in failures} == {400}
    assert "temperature" in failures[0]["response"]["body"]["error"]["message"]
    assert done.output_file_id is not None
    told = await client.files.retrieve(done.output_file_id)
    assert (told.purpose, told.bytes) == ("batch_output", len((await client.files.content(told.id)).content))
    listed = [each async for each in client.batches.list(limit=1)]
    assert [each.id for each in listed] == [done.id]
