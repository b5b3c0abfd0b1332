"""Records of jobs in their bucket, and files in their stream, with an edge's own login."""

import asyncio

import pytest

from broker.batch_jobs import BatchJobs
from broker.errors import BlobMissing, WrongSequence
from broker.files import CHUNK_BYTES, FileWriter, drop_file, find_file, list_files, put_head, read_file
from broker.subjects import STREAM_FILES, file_subject
from schemas.batch import BatchJob
from schemas.files import StoredFile
from tests.conftest import Broker

pytestmark = pytest.mark.nats


def job(name: str = "batch_1", tenant: str = "a.b") -> BatchJob:
    return BatchJob(job=name, tenant=tenant, owner="o", total=3, num_queued=0, created_at=1, expires_at=2)


async def test_a_record_is_made_once_and_found_by_its_tenant(broker: Broker) -> None:
    jobs = BatchJobs(broker.edge)
    await jobs.create(job())
    await jobs.create(job(tenant="other"))
    with pytest.raises(WrongSequence):
        await jobs.create(job())
    assert await jobs.get("a.b", "batch_1") == job()
    assert await jobs.get("a", "batch_1") is None
    assert await jobs.list("a.b") == [job()]
    assert len(await jobs.list(None)) == 2
    assert await jobs.list("nobody") == []


async def test_of_changes_at_once_none_is_lost(broker: Broker) -> None:
    jobs = BatchJobs(broker.edge)
    await jobs.create(job())

    def one_more(found: BatchJob) -> BatchJob:
        return found.model_copy(update={"num_queued": (found.num_queued or 0) + 1})

    await asyncio.gather(*(jobs.change("a.b", "batch_1", one_more) for _ in range(5)))
    changed = await jobs.get("a.b", "batch_1")
    assert changed is not None and changed.num_queued == 5
    assert await jobs.change("a.b", "batch_2", one_more) is None


async def test_a_file_is_whole_or_missing(broker: Broker) -> None:
    writer = FileWriter(broker.edge, "a.b", "file-1")
    data = bytes(range(251)) * 5000
    for start in range(0, len(data), 70_000):
        await writer.write(data[start : start + 70_000])
    await writer.finish()
    assert (writer.size_bytes, writer.num_chunks) == (len(data), -(-len(data) // CHUNK_BYTES))
    file = StoredFile(
        id="file-1", tenant="a.b", owner="o", filename="x", purpose="batch", size_bytes=writer.size_bytes,
        num_chunks=writer.num_chunks, created_at=1, expires_at=2,
    )  # fmt: skip
    assert await find_file(broker.edge, "a.b", "file-1") is None
    await put_head(broker.edge, file)
    assert await find_file(broker.edge, "a.b", "file-1") == file
    assert (await list_files(broker.edge, "a.b"), await list_files(broker.edge, "a")) == ([file], [])
    assert b"".join([piece async for piece in read_file(broker.edge, file)]) == data
    await broker.topology.api(f"STREAM.PURGE.{STREAM_FILES}", {"filter": file_subject("a.b", "file-1", 2)})
    with pytest.raises(BlobMissing):
        [piece async for piece in read_file(broker.edge, file)]
    await drop_file(broker.edge, "a.b", "file-1")
    assert await list_files(broker.edge, "a.b") == []
