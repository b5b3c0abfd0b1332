"""Bodies too large for a message, in chunks of their own stream (claim check)."""

import asyncio
import zlib
from typing import NamedTuple

from broker.connection import Connection
from broker.errors import BlobMissing, BrokerUnavailable
from broker.records import Record, read_records
from broker.subjects import STREAM_BLOBS, blob_subject, is_valid_id

CHUNK_BYTES = 256 * 1024
_PARALLEL = 4
_READ_S = 2.0


class BlobRef(NamedTuple):
    """What a message carries in place of its body: where it is, and how to know that it is whole."""

    id: str
    num_chunks: int
    size_bytes: int
    crc32: int

    def __str__(self) -> str:
        return f"{self.id} {self.num_chunks} {self.size_bytes} {self.crc32:08x}"

    @classmethod
    def parse(cls, text: str) -> "BlobRef":
        """Inverse of str(). Raises ValueError."""
        blob_id, num_chunks, size_bytes, crc32 = text.split(" ")
        if not is_valid_id(blob_id):
            raise ValueError(f"not a valid blob id: {blob_id!r}")
        return cls(blob_id, int(num_chunks), int(size_bytes), int(crc32, 16))


async def put_blob(connection: Connection, blob_id: str, body: bytes, give_up_s: float = 10.0) -> BlobRef:
    """Store `body`, all chunks acked. Raises StreamFull, BrokerUnavailable."""
    chunks = [body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES)]
    gate = asyncio.Semaphore(_PARALLEL)

    async def put(index: int, chunk: bytes) -> None:
        async with gate:
            await connection.publish_acked(blob_subject(blob_id, index), chunk, give_up_s=give_up_s)

    try:
        async with asyncio.TaskGroup() as group:
            for index, chunk in enumerate(chunks):
                group.create_task(put(index, chunk))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return BlobRef(blob_id, len(chunks), len(body), zlib.crc32(body))


async def get_blob(connection: Connection, ref: BlobRef) -> bytes:
    """Read a body back. Raises BlobMissing when it is not whole, BrokerUnavailable."""

    def is_complete(records: list[Record]) -> bool:
        return len(records) >= ref.num_chunks

    try:
        records = await read_records(
            connection, STREAM_BLOBS, blob_subject(ref.id, "*"), is_complete=is_complete, give_up_s=_READ_S
        )
    except BrokerUnavailable as error:
        raise BrokerUnavailable(f"a request's body cannot be read: {error}") from error
    chunks = {record.subject: record.payload for record in records}
    body = b"".join(chunks.get(blob_subject(ref.id, index), b"") for index in range(ref.num_chunks))
    if len(body) != ref.size_bytes or zlib.crc32(body) != ref.crc32:
        raise BlobMissing(
            f"body {ref.id} has {len(records)} of {ref.num_chunks} chunks, {len(body)} of {ref.size_bytes} bytes"
        )
    return body


async def drop_blob(connection: Connection, blob_id: str) -> None:
    """Delete a body. Raises ApiError, BrokerTimeout; its age deletes it in any case."""
    await connection.api(f"STREAM.PURGE.{STREAM_BLOBS}", {"filter": blob_subject(blob_id, "*")})
