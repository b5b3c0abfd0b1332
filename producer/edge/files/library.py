"""The files of callers: each sees their own, and of a stranger's there is nothing."""

import time
from collections.abc import AsyncIterator

from broker.connection import Connection
from broker.errors import BlobMissing, BrokerError
from broker.files import drop_file, find_file, list_files, read_file
from broker.subjects import is_valid_id
from producer.edge.files.refusals import no_such_file, unreachable
from schemas.files import StoredFile
from schemas.requests import Identity


class FileLibrary:
    """Reads and drops what `receive_file` has stored. All raise ServingError (404, 503)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, file_id: str, identity: Identity) -> StoredFile:
        if not is_valid_id(file_id):
            raise no_such_file()
        try:
            file = await find_file(self._connection, identity.tenant, file_id)
        except BrokerError as error:
            raise unreachable() from error
        if file is None or not _is_theirs(file, identity):
            raise no_such_file()
        return file

    async def list_own(self, identity: Identity) -> list[StoredFile]:
        """The oldest first."""
        try:
            files = await list_files(self._connection, identity.tenant)
        except BrokerError as error:
            raise unreachable() from error
        return sorted((file for file in files if _is_theirs(file, identity)), key=lambda file: file.id)

    async def drop(self, file: StoredFile) -> None:
        try:
            await drop_file(self._connection, file.tenant, file.id)
        except BrokerError as error:
            raise unreachable() from error

    async def content(self, file: StoredFile) -> AsyncIterator[bytes]:
        """Its bytes, piece by piece."""
        try:
            async for piece in read_file(self._connection, file):
                yield piece
        except BlobMissing as error:
            raise no_such_file() from error
        except BrokerError as error:
            raise unreachable() from error


def _is_theirs(file: StoredFile, identity: Identity) -> bool:
    return file.owner == identity.owner and file.expires_at > time.time()
