"""What has come of a batch, as JSON lines in OpenAI's form."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from broker.batch_results import BatchResults
from broker.errors import BrokerError
from broker.specs import JOBS_AGE_S
from broker.subjects import ResultEnd
from producer.edge.batch.output_ids import OutputName, ResultKind, output_id
from producer.edge.files.refusals import unreachable
from schemas.batch import BatchJob, BatchResult
from schemas.errors import ErrorCode

_PIECE_BYTES = 64 * 1024
_ENDS = {ResultKind.OUTPUT: ResultEnd.DONE, ResultKind.ERRORS: ResultEnd.FAILED}
# Of lines that were never begun.
_NOT_BEGUN = frozenset({ErrorCode.BATCH_CANCELLED, ErrorCode.BATCH_EXPIRED})


async def output_content(results: BatchResults, job: BatchJob, kind: ResultKind) -> AsyncIterator[bytes]:
    """The lines that are there by now, some at a time, in the order in which they came. Raises ServingError (503)."""
    piece = bytearray()
    try:
        async for result in results.read(job.tenant, job.job, end=_ENDS[kind]):
            piece += render_result(result)
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
    except BrokerError as error:
        raise unreachable() from error
    if piece:
        yield bytes(piece)


def render_result(result: BatchResult) -> bytes:
    """One line of a file. A line that was refused or failed shows the HTTP answer that it would have had."""
    response: dict[str, Any] | None = {
        "status_code": result.status_code,
        "request_id": result.request_id,
        "body": result.body,
    }
    error = None
    if result.error is not None and result.error.get("code") in _NOT_BEGUN:
        response, error = None, {"code": result.error["code"], "message": result.error.get("message", "")}
    line = {
        "id": f"batch_req_{result.request_id}",
        "custom_id": result.custom_id,
        "response": response,
        "error": error,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


async def output_object(results: BatchResults, job: BatchJob, name: OutputName) -> dict[str, Any]:
    """The file as it is now. Its size is found by writing it out. Raises ServingError (503)."""
    size_bytes = 0
    async for piece in output_content(results, job, name.kind):
        size_bytes += len(piece)
    return {
        "id": output_id(name.job, name.kind),
        "object": "file",
        "bytes": size_bytes,
        "created_at": job.created_at,
        "expires_at": job.created_at + JOBS_AGE_S,
        "filename": f"{name.job}_{name.kind}.jsonl",
        "purpose": "batch_output",
        "status": "processed",
        "status_details": None,
    }
