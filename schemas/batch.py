"""Lines of offline batches and what came of them, as they stand in the broker's streams.

A job is the publisher's own name for lines that belong together; its counts are what it published and the results that
are there. Wire form: a version byte, then msgpack. JSON is accepted for a line, because a person may publish one.
"""

import json
from typing import Annotated, Any, Literal, TypeVar

import msgpack  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from schemas.codec import VERSION, CodecError

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


class BatchResult(_Message):
    """What became of a line: status and JSON body as the HTTP answer to it would have had them."""

    job: JobId
    index: LineIndex
    custom_id: CustomId
    request_id: str
    status_code: Annotated[int, Field(ge=100, le=599)]
    body: dict[str, Any]

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object of the body; None of a line that was answered."""
        if self.status_code < 400:
            return None
        error: dict[str, Any] = self.body["error"]
        return error


def encode_line(line: BatchLine) -> bytes:
    """Raises CodecError when a number in the body is larger than 64 bits."""
    return _pack(line)


def decode_line(payload: bytes) -> BatchLine:
    """Unpack and validate a line, msgpack or JSON. Raises CodecError naming the first bad field."""
    return _decode(BatchLine, payload, "batch line")


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
    try:
        fields = json.loads(payload) if payload[:1] == b"{" else _unpack(payload)
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CodecError(f"{name} field {where}: {first['msg']}") from error
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise CodecError(f"{name}: {error}") from error


def _unpack(payload: bytes) -> Any:
    if payload[:1] != _PREFIX:
        raise CodecError(f"unknown message version {payload[:1].hex() or 'none'}")
    return msgpack.unpackb(memoryview(payload)[1:])
