"""The lines of a file: cut out of its chunks, and each one read."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError

from producer.edge.body import parse_json
from schemas.batch import BatchLine, BatchUrl, LineError, encode_line
from schemas.codec import CodecError
from schemas.errors import ServingError

_NAMES = ("custom_id", "method", "url", "body")
# What a body cannot ask for here, and why.
_REFUSED = {
    "stream": "A batch has no streams.",
    "stream_options": "A batch has no streams.",
    "priority": "Lines of a batch have the lowest priority.",
    "service_tier": "Lines of a batch have the lowest priority.",
}


class LineRefused(Exception):
    """A line that cannot be taken. `line` counts from 1, None where whoever catches this knows it."""

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.line = line

    def as_error(self, line: int | None) -> LineError:
        return LineError(code=self.code, message=str(self), line=line)


async def text_lines(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers from 1. Raises LineRefused for one that is longer than may be."""
    number, rest = 0, b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if line and not line.isspace():
                yield number, line
        if len(rest) > max_bytes:
            raise _too_long(len(rest), max_bytes, number + 1)
    if rest and not rest.isspace():
        yield number + 1, rest


def read_line(job: str, index: int, raw: bytes, url: BatchUrl, max_bytes: int) -> BatchLine:
    """A line of a file as it is queued. Raises LineRefused."""
    fields = _fields(raw, index)
    for name in _NAMES:
        if name not in fields:
            raise LineRefused("missing_required_parameter", f"'{name}' is missing.")
    for name in fields:
        if name not in _NAMES:
            raise LineRefused("unknown_parameter", f"{name[:64]!r} is not known here; known are {', '.join(_NAMES)}.")
    if fields["method"] != "POST":
        raise LineRefused("invalid_method", "'method' must be 'POST'.")
    if fields["url"] != url:
        raise LineRefused("invalid_url", f"'url' must be the endpoint of the batch, '{url}'.")
    _check_body(fields["body"])
    try:
        line = BatchLine(job=job, index=index, custom_id=fields["custom_id"], url=url, body=fields["body"])
        size = len(encode_line(line))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise LineRefused("invalid_parameter", f"'{where[:100]}': {first['msg']}.") from None
    except CodecError as error:
        raise LineRefused("invalid_json_line", f"{error}.") from None
    if size > max_bytes:
        raise _too_long(size, max_bytes)
    return line


def _fields(raw: bytes, index: int) -> dict[str, Any]:
    try:
        return parse_json(raw.removeprefix(b"\xef\xbb\xbf") if index == 0 else raw)
    except ServingError as error:
        raise LineRefused("invalid_json_line", error.message.replace("The body", "The line", 1)) from None


def _check_body(body: Any) -> None:
    if not isinstance(body, dict):
        raise LineRefused("invalid_parameter", "'body' must be a JSON object.")
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 256:
        raise LineRefused("missing_required_parameter", "'body.model' must name a model.")
    for name, why in _REFUSED.items():
        if body.get(name) not in (None, False):
            raise LineRefused("unsupported_parameter", f"'body.{name}' cannot be used. {why}")


def _too_long(size: int, max_bytes: int, line: int | None = None) -> LineRefused:
    return LineRefused("line_too_large", f"The line has {size} bytes or more; {max_bytes} is the most.", line)
