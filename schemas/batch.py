"""Lines of offline batches and what came of them, as they stand in the broker's streams.

A job is the publisher's own name for lines that belong together; its counts are what it published and the results that
are there. Wire form: a version byte, then msgpack. JSON is accepted for a line, because a person may publish one.
A job that came through an edge also has a record (bucket `batches`), and is queued as one `BatchSubmission` until its
lines are.
"""

import json
from typing import Annotated, Any, Literal, TypeVar

import msgpack  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from schemas.codec import VERSION, CodecError, unpack

_PREFIX = bytes([VERSION])

JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
LineIndex = Annotated[int, Field(ge=0, lt=2**31)]
CustomId = Annotated[str, Field(min_length=1, max_length=512)]
BatchUrl = Literal["/v1/chat/completions", "/v1/completions"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_M = TypeVar("_M", bound=_Message)


class BatchLine(_Message):
    """One call of a job. `index` tells the lines of a job apart, `custom_id` is the client's name for it.

    `body` is that of the HTTP call, and names its model.
    """

    job: JobId
    index: LineIndex
    custom_id: CustomId
    method: Literal["POST"] = "POST"
    url: BatchUrl
    body: dict[str, JsonValue]

    @property
    def model(self) -> str:
        """What the body asks for, empty when it names none."""
        model = self.body.get("model")
        return model if isinstance(model, str) else ""


class BatchSubmission(_Message):
    """A job of the bucket `batches` whose lines are still in its file: whoever takes this queues them."""

    submission: JobId


class LineError(_Message):
    """What is wrong with a file of lines. `line` counts from 1; None for what concerns the whole file."""

    code: str
    message: str
    line: int | None = None


class BatchJob(_Message):
    """The record of a job. Times are Unix seconds.

    `owner` and `models` are those of the key that brought it: who may see it, and what it may use. `num_queued` of
    `total` lines have been queued so far; both are None of a publisher's own job, which has a record only because it
    was cancelled. `errors`: why it was refused as a whole. `cancelled_at`: no line is begun any more.
    """

    job: JobId
    tenant: str
    owner: str
    models: Annotated[tuple[str, ...], Field(strict=False)] = ("*",)
    url: BatchUrl = "/v1/chat/completions"
    input_file: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    total: Annotated[int, Field(ge=0)] | None = None
    num_queued: Annotated[int, Field(ge=0)] | None = None
    errors: Annotated[tuple[LineError, ...], Field(strict=False)] = ()
    created_at: int
    expires_at: int
    cancelled_at: int | None = None


class BatchResult(_Message):
    """What became of a line: status and JSON body as the HTTP answer to it would have had them."""

    job: JobId
    index: LineIndex
    custom_id: CustomId
    request_id: str
    status_code: Annotated[int, Field(ge=100, le=599)]
    body: dict[str, Any]

    @property
    def is_failed(self) -> bool:
        return self.status_code >= 400

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object of the body; None of a line that was answered."""
        if not self.is_failed:
            return None
        error: dict[str, Any] = self.body["error"]
        return error


class LineAddress(_Message):
    """Where the result of a line belongs."""

    job: JobId
    index: LineIndex
    custom_id: CustomId


def encode_line(line: BatchLine) -> bytes:
    """Raises CodecError when a number in the body is larger than 64 bits."""
    return _pack(line)


def decode_line(payload: bytes) -> BatchLine:
    """Unpack and validate a line, msgpack or JSON. Raises CodecError naming the first bad field."""
    return _decode(BatchLine, payload, "batch line")


def encode_submission(submission: BatchSubmission) -> bytes:
    return _pack(submission)


def decode_queued(payload: bytes) -> BatchLine | BatchSubmission:
    """What stands in the queue. Raises CodecError naming the first bad field."""
    fields = _fields(payload, "batch line")
    is_submission = isinstance(fields, dict) and "submission" in fields
    return (
        _validate(BatchSubmission, fields, "batch submission")
        if is_submission
        else _validate(BatchLine, fields, "batch line")
    )


def read_address(payload: bytes) -> LineAddress | None:
    """Where the result of a line belongs whose other fields cannot be read; None when these cannot either.

    Without a readable `custom_id` it is called by its index.
    """
    try:
        fields = _fields(payload, "batch line")
        name = {"job": fields["job"], "index": fields["index"]}
        address = _validate(LineAddress, name | {"custom_id": str(name["index"])}, "batch line")
    except (CodecError, TypeError, KeyError, IndexError):
        return None
    try:
        return _validate(LineAddress, name | {"custom_id": fields.get("custom_id")}, "batch line")
    except CodecError:
        return address


def encode_job(job: BatchJob) -> bytes:
    return _pack(job)


def decode_job(payload: bytes) -> BatchJob:
    """Raises CodecError naming the first bad field."""
    return _decode(BatchJob, payload, "batch job")


def encode_result(result: BatchResult) -> bytes:
    return _pack(result)


def decode_result(payload: bytes) -> BatchResult:
    """Raises CodecError naming the first bad field."""
    return _decode(BatchResult, payload, "batch result")


def _pack(message: _Message) -> bytes:
    try:
        packed: bytes = msgpack.packb(message.model_dump())
    except (ValueError, OverflowError) as error:
        raise CodecError(f"batch message cannot be packed: {error}") from error
    return _PREFIX + packed


def _decode(kind: type[_M], payload: bytes, name: str) -> _M:
    return _validate(kind, _fields(payload, name), name)


def _fields(payload: bytes, name: str) -> Any:
    try:
        return json.loads(payload) if payload[:1] == b"{" else unpack(payload)
    except (ValueError, RecursionError) as error:  # CodecError among them
        raise CodecError(f"{name}: {error}") from error


def _validate(kind: type[_M], fields: Any, name: str) -> _M:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CodecError(f"{name} field {where}: {first['msg']}") from error
