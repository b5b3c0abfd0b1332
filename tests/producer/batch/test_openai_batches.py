"""Files and batches through the official SDK, on a real edge that drains them."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from broker.batch_jobs import BatchJobs
from producer.config import AuditConfig, AuditLevel
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, KEY, Edge, running_edge, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
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


async def test_a_batch_is_cancelled(client: openai.AsyncOpenAI, worker: ScriptedWorker) -> None:
    """Each line that has no answer by then gets an error of its own."""
    may_end = asyncio.Event()

    async def hold(run: Run) -> None:
        await may_end.wait()
        await run.finish("done")

    worker.script = hold
    created = await create(client, *[line(f"n{n}") for n in range(30)])
    await worker.started.wait()
    cancelling = await client.batches.cancel(created.id)
    assert cancelling.status == "cancelling" and cancelling.cancelling_at is not None

    async def some_are_over() -> bool:
        counts = (await client.batches.retrieve(created.id)).request_counts
        return counts is not None and counts.failed > 0

    await until(some_are_over, every_s=0.1)
    may_end.set()
    done = await until_status(client, created.id, "cancelled", "completed")
    assert (done.status, done.cancelling_at) == ("cancelled", cancelling.cancelling_at)
    assert done.cancelled_at is not None and done.request_counts is not None
    assert done.request_counts.completed + done.request_counts.failed == 30
    failures = await content(client, done.error_file_id)
    assert len(failures) == done.request_counts.failed > 0
    assert [(each["response"], each["error"]["code"]) for each in failures] == [(None, "batch_cancelled")] * len(
        failures
    )
    with pytest.raises(openai.BadRequestError, match="cannot be cancelled"):
        await client.batches.cancel(created.id)


async def test_files_are_listed_read_and_deleted(client: openai.AsyncOpenAI) -> None:
    files = [await upload(client, line("a")), await upload(client, line("b"))]
    listed = [each async for each in client.files.list(limit=1)]
    assert [each.id for each in listed] == [files[1].id, files[0].id]
    assert await client.files.retrieve(files[0].id) == files[0]
    assert (await client.files.content(files[0].id)).content == as_file(line("a"))
    assert (await client.files.delete(files[0].id)).deleted
    with pytest.raises(openai.NotFoundError, match="no such file"):
        await client.files.retrieve(files[0].id)
    with pytest.raises(openai.NotFoundError, match="no such file"):
        await client.batches.create(input_file_id=files[0].id, endpoint=CHAT, completion_window="24h")


async def test_a_bad_file_makes_a_batch_that_has_failed(client: openai.AsyncOpenAI) -> None:
    made = await create(client, line("a"), b"{no json", line("a"), line("c", model="absent"), line("d"))
    assert made.status == "failed" and made.failed_at is not None
    assert made.errors is not None and made.errors.data is not None
    assert [(error.line, error.code) for error in made.errors.data] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "model_not_found"),
    ]
    assert await client.batches.retrieve(made.id) == made
    assert (made.output_file_id, made.error_file_id) == (None, None)


async def test_what_cannot_be_asked_of_a_batch(edge: Edge, client: openai.AsyncOpenAI) -> None:
    file = await upload(client, line("a"))
    good = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for change, param in [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
        ({"metadata": {"k": 7}}, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
        ({"input_file_id": None}, "input_file_id"),
    ]:
        told = await edge.post({**good, **change}, "/v1/batches")
        assert (told.status_code, told.json()["error"]["param"]) == (400, param), change


async def test_a_file_is_kept_until_its_batch_has_read_it(
    broker: Broker, edge: Edge, client: openai.AsyncOpenAI
) -> None:
    """And what has come of one is no file that could be deleted."""
    created = await create(client, line("a"))
    done = await until_status(client, created.id, "completed")
    assert done.output_file_id is not None
    with pytest.raises(openai.BadRequestError, match="cannot be deleted"):
        await client.files.delete(done.output_file_id)
    jobs = BatchJobs(broker.edge)
    await jobs.change("default", created.id, lambda job: job.model_copy(update={"num_queued": 0}))
    with pytest.raises(openai.BadRequestError, match="still to read"):
        await client.files.delete(created.input_file_id)
    await jobs.change("default", created.id, lambda job: job.model_copy(update={"num_queued": 1}))
    assert (await client.files.delete(created.input_file_id)).deleted


async def test_a_batch_is_audited_where_calls_are(broker: Broker, worker: ScriptedWorker) -> None:
    """Who brought it and who cancelled it; a file that was no good is told of too."""
    config = replace(CONFIG, audit=AuditConfig(level=AuditLevel.REQUESTS))
    async with (
        running_edge(broker, config) as edge,
        openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        await until_served(edge)
        worker.script = hold_for_ever
        good, bad = await create(client, line("a")), await create(client, b"{")
        await client.batches.cancel(good.id)
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        found: list[dict[str, Any]] = []

        async def are_recorded() -> bool:
            listed = (await edge.client.get("/v1/admin/audit?actor=alice&order=asc", headers=headers)).json()
            found[:] = [each for each in listed["data"] if each["action"].startswith("batch.")]
            return len(found) == 3

        await until(are_recorded)
    assert [(each["action"], each["target"], each["outcome"]) for each in found] == [
        ("batch.create", good.id, "allowed"),
        ("batch.create", bad.id, "failed"),
        ("batch.cancel", good.id, "allowed"),
    ]
    assert found[1]["reason"] == "invalid_json_line"


async def hold_for_ever(run: Run) -> None:
    await run.cancelled.wait()
    await run.finish("")
