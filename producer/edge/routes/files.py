"""/v1/files"""

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from producer.config import Scope
from producer.edge.batch.batch_types import DeletedFile, FileList, FileView
from producer.edge.batch.output_ids import parse_output_id
from producer.edge.batch.outputs import output_content, output_object
from producer.edge.body import Pace
from producer.edge.context import identity_of
from producer.edge.errors import invalid
from producer.edge.files.upload import HELD_BYTES, PURPOSE, UploadLimits, receive_file
from producer.edge.guard import services_of
from producer.edge.ids import mint_ordered_id
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.paging import NAMES, page
from producer.edge.routes.query_values import QueryValues
from schemas.errors import ErrorCode
from schemas.files import StoredFile

_READERS = (Scope.READ, Scope.GENERATE)
_LINES = "application/jsonl"
_MOST_LISTED = 10_000


@operation(
    summary="Leave a file of lines for a batch: a form with file and purpose=batch",
    scope=Scope.GENERATE,
    returns=FileView,
    errors=(
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.UNSUPPORTED_PARAMETER,
        ErrorCode.PAYLOAD_TOO_LARGE,
        ErrorCode.QUEUE_FULL,
        ErrorCode.STORAGE_FULL,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def upload_file(request: Request) -> Response:
    services = services_of(request)
    config = services.config
    limits = UploadLimits(config.max_upload_bytes, config.body_timeout_s, Pace(*config.body_pace))
    with services.arrivals.enter() as arrival:
        arrival.take_bytes(HELD_BYTES)
        file_id = mint_ordered_id("file-")
        file = await receive_file(request, services.connection, identity_of(request), file_id, limits)
    return json_response(_view(file))


@operation(
    summary="Files of one's own: after, limit, order, purpose",
    scope=_READERS,
    returns=FileList,
    errors=(ErrorCode.INVALID_PARAMETER, ErrorCode.UNKNOWN_PARAMETER, ErrorCode.BROKER_UNAVAILABLE),
)
async def list_files(request: Request) -> Response:
    values = QueryValues(request, (*NAMES, "purpose"))
    purpose = values.text("purpose", 64)
    files = await services_of(request).doors.library.list_own(identity_of(request))
    wanted = files if purpose in (None, PURPOSE) else []
    return await page(values, wanted, lambda file: file.id, _describe, default=_MOST_LISTED, most=_MOST_LISTED)


@operation(
    summary="A file of one's own, or of what has come of a batch",
    scope=_READERS,
    returns=FileView,
    errors=(ErrorCode.FILE_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def show_file(request: Request) -> Response:
    doors, name = services_of(request).doors, parse_output_id(request.path_params["id"])
    if name is None:
        return json_response(_view(await doors.library.get(request.path_params["id"], identity_of(request))))
    job = await doors.batch_of(name, identity_of(request))
    return json_response(await output_object(doors.results, job, name))


@operation(
    summary="The content of a file; that of a running batch as far as it has come",
    scope=_READERS,
    returns=_LINES,
    errors=(ErrorCode.FILE_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def read_file(request: Request) -> Response:
    doors, identity = services_of(request).doors, identity_of(request)
    name = parse_output_id(request.path_params["id"])
    if name is None:
        content = doors.library.content(await doors.library.get(request.path_params["id"], identity))
    else:
        content = output_content(doors.results, await doors.batch_of(name, identity), name.kind)
    # What fails at once is an answer; what fails later can only cut it off.
    first = await anext(content, b"")
    return StreamingResponse(_behind(first, content), media_type=_LINES)


@operation(
    summary="Delete a file of one's own",
    scope=Scope.GENERATE,
    returns=DeletedFile,
    errors=(ErrorCode.INVALID_PARAMETER, ErrorCode.FILE_NOT_FOUND, ErrorCode.BROKER_UNAVAILABLE),
)
async def delete_file(request: Request) -> Response:
    doors, identity = services_of(request).doors, identity_of(request)
    name = parse_output_id(request.path_params["id"])
    if name is not None:
        await doors.batch_of(name, identity)
        raise invalid("What has come of a batch cannot be deleted; it goes with the batch.")
    file = await doors.library.get(request.path_params["id"], identity)
    if (reader := await doors.batches.reader_of(file)) is not None:
        raise invalid(f"The batch {reader.job} has still to read this file; cancel it first, or wait.")
    await doors.library.drop(file)
    return json_response({"id": file.id, "object": "file", "deleted": True})


async def _describe(file: StoredFile) -> dict[str, Any]:
    return _view(file)


def _view(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
