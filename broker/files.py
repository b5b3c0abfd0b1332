"""Files of tenants, in chunks of their own stream, each with a head that says what it is."""

import asyncio
from collections.abc import AsyncIterator

from pydantic import ValidationError

from broker.connection import Connection
from broker.documents import read, written
from broker.errors import ApiError, BlobMissing, BrokerError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.records import get_record, last_records, read_records
from broker.subjects import STREAM_FILES, file_subject
from schemas.files import StoredFile

CHUNK_BYTES = 256 * 1024
_HEAD = "head"
_PARALLEL = 4
_ABORT_S = 5.0
_PAGE_CHUNKS = 4
_TRIES = 20
_PAUSE_S = 0.1


class FileWriter:
    """A new file. Of what is written so much is held: what four chunks on their way and one to be are."""

    def __init__(self, connection: Connection, tenant: str, file_id: str) -> None:
        self._connection = connection
        self._tenant = tenant
        self._file_id = file_id
        self._rest = bytearray()
        self._on_their_way: set[asyncio.Task[None]] = set()
        self.num_chunks = 0
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Take more of it, waiting while too much is on its way. Raises StreamFull, BrokerUnavailable."""
        self.size_bytes += len(data)
        self._rest += data
        while len(self._rest) >= CHUNK_BYTES:
            chunk = bytes(self._rest[:CHUNK_BYTES])
            del self._rest[:CHUNK_BYTES]
            await self._put(chunk)

    async def finish(self) -> None:
        """Wait until all of it is stored. Raises as `write` does."""
        if self._rest:
            await self._put(bytes(self._rest))
            self._rest.clear()
        await self._settle(0)

    async def abort(self) -> None:
        """Drop what has been stored. Raises BrokerError; its age drops it in any case."""
        # What is on its way may be stored after the purge.
        if self._on_their_way:
            await asyncio.wait(self._on_their_way, timeout=_ABORT_S)
        for task in self._on_their_way:
            task.cancel()
        await asyncio.gather(*self._on_their_way, return_exceptions=True)
        await drop_file(self._connection, self._tenant, self._file_id)

    async def _put(self, chunk: bytes) -> None:
        await self._settle(_PARALLEL - 1)
        subject = file_subject(self._tenant, self._file_id, self.num_chunks)
        self.num_chunks += 1
        self._on_their_way.add(asyncio.create_task(self._publish(subject, chunk)))

    async def _publish(self, subject: str, chunk: bytes) -> None:
        await self._connection.publish_acked(subject, chunk)

    async def _settle(self, most: int) -> None:
        while len(self._on_their_way) > most:
            done, self._on_their_way = await asyncio.wait(self._on_their_way, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()


async def put_head(connection: Connection, file: StoredFile) -> None:
    """From now on there is this file. Raises StreamFull, BrokerUnavailable."""
    await connection.publish_acked(file_subject(file.tenant, file.id, _HEAD), written(file, {}))


async def find_file(connection: Connection, tenant: str, file_id: str) -> StoredFile | None:
    """Raises BrokerUnavailable."""
    record = await get_record(connection, STREAM_FILES, {"last_by_subj": file_subject(tenant, file_id, _HEAD)})
    return _parse(record.payload) if record is not None else None


async def list_files(connection: Connection, tenant: str) -> list[StoredFile]:
    """All files of a tenant. A replica that answers may lack the newest. Raises BrokerUnavailable."""
    records = await read_records(connection, STREAM_FILES, file_subject(tenant, "*", _HEAD), is_complete=lambda _: True)
    return [file for record in records if (file := _parse(record.payload)) is not None]


async def read_file(connection: Connection, file: StoredFile) -> AsyncIterator[bytes]:
    """Its bytes, a megabyte at a time at most. Raises BlobMissing when a part of it is gone, BrokerUnavailable."""
    for start in range(0, file.num_chunks, _PAGE_CHUNKS):
        subjects = [
            file_subject(file.tenant, file.id, index)
            for index in range(start, min(start + _PAGE_CHUNKS, file.num_chunks))
        ]
        yield b"".join(await _read_chunks(connection, subjects))


async def drop_file(connection: Connection, tenant: str, file_id: str) -> None:
    """Raises BrokerUnavailable."""
    try:
        await connection.api(f"STREAM.PURGE.{STREAM_FILES}", {"filter": file_subject(tenant, file_id, "*")})
    except (ApiError, BrokerTimeout, NoResponders) as error:
        raise BrokerUnavailable(f"the file {file_id} was not dropped: {error}") from error


async def drop_remains(connection: Connection, tenant: str, before: str) -> None:
    """Drop what there is of files without a head whose ids sort before that one: their edge died while they came.

    Raises BrokerUnavailable.
    """
    query = {"subjects_filter": file_subject(tenant, "*", "*")}
    try:
        subjects = (await connection.api(f"STREAM.INFO.{STREAM_FILES}", query))["state"].get("subjects") or {}
    except (ApiError, BrokerTimeout, NoResponders) as error:
        raise BrokerUnavailable(f"files cannot be listed: {error}") from error
    parts = [subject.split(".")[-2:] for subject in subjects]
    whole = {file_id for file_id, part in parts if part == _HEAD}
    for file_id in {file_id for file_id, _ in parts if file_id < before} - whole:
        await drop_file(connection, tenant, file_id)


async def _read_chunks(connection: Connection, subjects: list[str]) -> list[bytes]:
    """Asked again while one is missing: the replica that answers may not have it yet."""
    failure: BrokerError = BlobMissing("a part of the file is gone")
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE_S)
            await connection.wait_connected(_PAUSE_S * _TRIES)
        try:
            records = await last_records(connection, STREAM_FILES, subjects)
        except (ApiError, BrokerTimeout, NoResponders) as error:
            failure = BrokerUnavailable(f"the file cannot be read: {error}")
            continue
        if len(records) == len(subjects):
            return [records[subject].payload for subject in subjects]
        failure = BlobMissing("a part of the file is gone")
    raise failure


def _parse(payload: bytes) -> StoredFile | None:
    try:
        return read(StoredFile, payload)
    except ValidationError:
        return None
