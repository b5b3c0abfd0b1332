"""Taking a file in: from the body of a request into the broker, piece by piece."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.types import Message

from broker.connection import Connection
from broker.errors import BrokerError, StreamFull
from broker.files import FileWriter, drop_remains, put_head
from broker.specs import FILES_AGE_S
from producer.edge.body import ClientLeft, Pace, UnreadBody, discard
from producer.edge.errors import invalid
from producer.edge.files.form import FileBegins, Form, FormField
from producer.edge.files.refusals import storage_full, unreachable
from producer.edge.ids import mint_ordered_id
from schemas.errors import ErrorCode, ServingError
from schemas.files import StoredFile
from schemas.requests import Identity

PURPOSE: Final = "batch"
# What the edge holds of one file on its way: pieces of the body, a chunk, and those that are being written.
HELD_BYTES = 2 << 20
_FORM_BYTES = 64 * 1024
_LONGEST_UPLOAD_S = 86400
_MAX_FILENAME = 255
_FIELDS = ("file", "purpose")


class UploadLimits:
    """`max_bytes` of the file. `timeout_s` is how long the client may pause, `pace` how slow it may be in all."""

    def __init__(self, max_bytes: int, timeout_s: float, pace: Pace) -> None:
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.pace = pace

    @property
    def too_large(self) -> ServingError:
        return UnreadBody(ErrorCode.PAYLOAD_TOO_LARGE, f"The file is larger than {self.max_bytes} bytes.", param="file")


async def receive_file(
    request: Request, connection: Connection, identity: Identity, file_id: str, limits: UploadLimits
) -> StoredFile:
    """Store the file of a form, and its head when all of it is there.

    Raises ServingError (400, 413, 503, 507) or ClientLeft; then nothing of it is kept.
    """
    writer = FileWriter(connection, identity.tenant, file_id)
    # Of the head, as it was before its chunks: they are not to go first.
    now = int(time.time())
    try:
        filename = await _store(request, writer, limits)
        file = StoredFile(
            id=file_id,
            tenant=identity.tenant,
            owner=identity.owner,
            filename=filename,
            purpose=PURPOSE,
            size_bytes=writer.size_bytes,
            num_chunks=writer.num_chunks,
            created_at=now,
            expires_at=now + FILES_AGE_S,
        )
        await put_head(connection, file)
    except BaseException as error:
        with contextlib.suppress(BrokerError):
            await writer.abort()
        if isinstance(error, StreamFull):
            await _make_room(connection, identity.tenant)
            raise storage_full() from error
        if isinstance(error, BrokerError):
            raise unreachable() from error
        raise
    return file


async def _make_room(connection: Connection, tenant: str) -> None:
    """For the next one: drop files that have been on their way for longer than any is."""
    with contextlib.suppress(BrokerError):
        await drop_remains(connection, tenant, mint_ordered_id("file-", _LONGEST_UPLOAD_S))


async def _store(request: Request, writer: FileWriter, limits: UploadLimits) -> str:
    """Write what is in the form's file; its name."""
    form = Form(request.headers.get("content-type", ""))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.max_bytes + _FORM_BYTES:
        if request.headers.get("expect", "").lower() != "100-continue":
            await discard(request, int(declared))
        raise limits.too_large
    seen: dict[str, str] = {}
    body = _Body(request, limits)
    async for data in body.pieces():
        for piece in form.feed(data):
            if isinstance(piece, bytes):
                if writer.size_bytes + len(piece) > limits.max_bytes:
                    await body.discard()
                    raise limits.too_large
                await writer.write(piece)
            else:
                _note(seen, piece)
    for name in _FIELDS:
        if name not in seen:
            raise invalid(f"'{name}' is required.", name)
    if not form.has_ended:
        raise invalid("The form ends before its last boundary.")
    if not writer.size_bytes:
        raise invalid("The file is empty.", "file")
    await writer.finish()
    return seen["file"][:_MAX_FILENAME] or "file"


def _note(seen: dict[str, str], part: FormField | FileBegins) -> None:
    """Raises ServingError (400) for a part that has no place here."""
    if part.name in seen:
        raise invalid(f"'{part.name}' stands there twice.", part.name)
    if part.name == "file" and isinstance(part, FileBegins):
        seen["file"] = part.filename
    elif part.name == "file":
        raise invalid("'file' must be a file: a part with a filename.", "file")
    elif part.name == "purpose" and isinstance(part, FormField):
        if part.value != PURPOSE:
            raise invalid(f"'purpose' must be '{PURPOSE}': files of other purposes are not kept here.", "purpose")
        seen["purpose"] = part.value
    elif part.name.startswith("expires_after"):
        days = FILES_AGE_S // 86400
        code = ErrorCode.UNSUPPORTED_PARAMETER
        raise ServingError(
            code, f"'expires_after' is not supported: files are kept for {days} days.", param="expires_after"
        )
    else:
        known = ", ".join(_FIELDS)
        name = part.name[:64]
        raise ServingError(ErrorCode.UNKNOWN_PARAMETER, f"'{name}' is not known here; known are {known}.", param=name)


class _Body:
    """A body as it comes. What counts is how long the client is waited for, not how long the broker takes."""

    def __init__(self, request: Request, limits: UploadLimits) -> None:
        self._request = request
        self._limits = limits
        self._num_bytes = 0
        self._waited_s = 0.0
        self._more = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises ServingError (400, too slow) or ClientLeft."""
        while self._more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            data = message.get("body", b"")
            self._more = message.get("more_body", False)
            self._num_bytes += len(data)
            yield data

    async def discard(self) -> None:
        """Raises ClientLeft."""
        if self._more:
            await discard(self._request)

    async def _receive(self) -> Message:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        left_s = self._limits.pace.allowed_s(self._num_bytes) - self._waited_s
        try:
            async with asyncio.timeout(max(0.0, min(left_s, self._limits.timeout_s))):
                return await self._request.receive()
        except TimeoutError:
            text = f"The file came too slowly: {self._num_bytes} bytes."
            raise UnreadBody(ErrorCode.INVALID_PARAMETER, text) from None
        finally:
            self._waited_s += clock() - asked_at
