"""Lines queued from a file, on a real broker: in pages, and on from where it stopped."""

import asyncio
import json
import time

import pytest

from broker.batch_jobs import BatchJobs
from broker.errors import StreamFull
from broker.files import FileWriter, drop_file, put_head
from broker.subjects import STREAM_BATCH
from producer.edge.batch.expansion import Expansion
from producer.edge.batch.hooks import BatchHooks
from schemas.batch import BatchJob, BatchSubmission
from schemas.files import StoredFile
from tests.conftest import Broker
from tests.producer.batch.draining import draining, results_of, until_drained
from tests.producer.scripted_worker import ScriptedWorker
from tests.support.waiting import until

pytestmark = pytest.mark.nats

JOB = "batch_1"
SUBMISSION = BatchSubmission(submission=JOB)
CHAT = "/v1/chat/completions"


async def leave(broker: Broker, num_lines: int) -> BatchJobs:
    """A job of so many lines and its file, as the doors leave them."""
    writer = FileWriter(broker.edge, "acme", "file-1")
    for index in range(num_lines):
        body = {"model": "echo", "messages": [{"role": "user", "content": f"text {index}"}]}
        line = {"custom_id": f"n{index}", "method": "POST", "url": CHAT, "body": body}
        await writer.write(json.dumps(line).encode() + b"\n")
    await writer.finish()
    now = int(time.time())
    size, num_chunks = writer.size_bytes, writer.num_chunks
    head = StoredFile(
        id="file-1", tenant="acme", owner="alice", filename="x", purpose="batch", size_bytes=size,
        num_chunks=num_chunks, created_at=now, expires_at=now + 1000,
    )  # fmt: skip
    await put_head(broker.edge, head)
    jobs = BatchJobs(broker.edge)
    await jobs.create(
        BatchJob(
            job=JOB, tenant="acme", owner="alice", input_file="file-1", total=num_lines, num_queued=0, created_at=now,
            expires_at=now + 1000,
        )
    )  # fmt: skip
    return jobs


class Renewals:
    """Ends the task that renews for the `last`-th time, as a crash would."""

    def __init__(self, last: int = 0) -> None:
        self._last = last
        self.number = 0

    async def __call__(self) -> None:
        self.number += 1
        if self.number == self._last:
            raise asyncio.CancelledError


async def num_queued(jobs: BatchJobs) -> int | None:
    job = await jobs.get("acme", JOB)
    assert job is not None
    return job.num_queued


async def num_lines(broker: Broker) -> int:
    number: int = (await broker.topology.api(f"STREAM.INFO.{STREAM_BATCH}"))["state"]["messages"]
    return number


async def test_it_goes_on_where_a_crash_ended_it_and_each_line_has_one_result(
    broker: Broker, worker: ScriptedWorker
) -> None:
    jobs = await leave(broker, 100)
    expansion = Expansion(broker.edge, jobs, page_lines=30)
    with pytest.raises(asyncio.CancelledError):
        await expansion.expand("acme", SUBMISSION, Renewals(last=3))
    assert (await num_queued(jobs), await num_lines(broker)) == (60, 60)
    await jobs.submit("acme", JOB)
    async with draining(broker, BatchHooks(jobs.get, expansion.expand)):
        results = await results_of(broker, JOB, 100)
        await until_drained(broker)
    assert await num_queued(jobs) == 100
    assert {index: result.custom_id for index, result in results.items()} == {n: f"n{n}" for n in range(100)}
    assert {result.status_code for result in results.values()} == {200}
    assert {run.request.identity.owner for run in worker.runs} == {"alice"}


async def test_what_was_queued_and_not_noted_is_queued_once(broker: Broker) -> None:
    jobs = await leave(broker, 50)
    expansion = Expansion(broker.edge, jobs, page_lines=20)
    await expansion.expand("acme", SUBMISSION, Renewals())
    # As if the crash had come before any of it was noted.
    await jobs.change("acme", JOB, lambda job: job.model_copy(update={"num_queued": 0}))
    await expansion.expand("acme", SUBMISSION, Renewals())
    assert (await num_queued(jobs), await num_lines(broker)) == (50, 50)
    renewals = Renewals()
    await expansion.expand("acme", SUBMISSION, renewals)
    assert renewals.number == 0, "there was nothing left to do"


async def test_without_room_it_waits_and_is_asked_again_later(broker: Broker) -> None:
    jobs = await leave(broker, 50)
    config = (await broker.topology.api(f"STREAM.INFO.{STREAM_BATCH}"))["config"]
    await broker.topology.api(f"STREAM.UPDATE.{STREAM_BATCH}", {**config, "max_msgs": 30})
    with pytest.raises(StreamFull):
        await Expansion(broker.edge, jobs, page_lines=20, room_s=0).expand("acme", SUBMISSION, Renewals())
    assert (await num_queued(jobs), await num_lines(broker)) == (20, 30)
    waiting = Renewals()
    expansion = Expansion(broker.edge, jobs, page_lines=20)
    task = asyncio.create_task(expansion.expand("acme", SUBMISSION, waiting))
    await until(lambda: waiting.number >= 2)
    await broker.topology.api(f"STREAM.UPDATE.{STREAM_BATCH}", config)
    await task
    assert (await num_queued(jobs), await num_lines(broker)) == (50, 50)


async def test_without_its_file_a_job_fails(broker: Broker) -> None:
    jobs = await leave(broker, 5)
    await drop_file(broker.edge, "acme", "file-1")
    await Expansion(broker.edge, jobs).expand("acme", SUBMISSION, Renewals())
    job = await jobs.get("acme", JOB)
    assert job is not None
    assert [error.code for error in job.errors] == ["input_file_missing"]
    assert await num_lines(broker) == 0


async def test_a_submission_without_a_record_is_nothing(broker: Broker) -> None:
    await Expansion(broker.edge, BatchJobs(broker.edge)).expand("acme", SUBMISSION, Renewals())
    assert await num_lines(broker) == 0
