"""Reading a request's body: bounded in size and time, and strict JSON."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from starlette.datastructures import Headers
from starlette.requests import Request

from schemas.errors import ErrorCode, ServingError

# A body beyond the limit is read on for a while and thrown away, so that the client gets to read our answer instead of
# a reset connection.
_DISCARD_BYTES = 64 * 1024 * 1024
_DISCARD_S = 5.0
_LONG_NUMBER = re.compile(rb"\d{19}")
_INT64 = 2**63


class ClientLeft(Exception):
    """The client closed the connection before its request was whole; nobody reads an answer."""


class UnreadBody(ServingError):
    """A refusal while more of the body is on its way: the connection cannot be used for another request."""


class Pace(NamedTuple):
    """A body has `grace_s` to be whole, and a second more for each `min_rate` bytes that have come."""

    grace_s: float = 15.0
    min_rate: int = 4096

    def allowed_s(self, num_bytes: int) -> float:
        """How long a body may take of which `num_bytes` have come."""
        return self.grace_s + num_bytes / self.min_rate


_USUAL = Pace()
Take = Callable[[int], None]


def _take_freely(num_bytes: int) -> None:
    return


async def read_json(
    request: Request, max_bytes: int, timeout_s: float, take: Take = _take_freely, pace: Pace = _USUAL
) -> tuple[dict[str, Any], bytes]:
    """The body as a JSON object, and its bytes. Raises ServingError (400, 413, and what `take` does) or ClientLeft."""
    check_content_type(request.headers)
    body = await read_body(request, max_bytes, timeout_s, take, pace)
    return parse_json(body), body


def check_content_type(headers: Headers) -> None:
    """Raises ServingError (400) unless the body is plain JSON in UTF-8, or says nothing about itself."""
    content_type = headers.get("content-type", "application/json")
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise ServingError(ErrorCode.INVALID_JSON, "The body must be JSON, with Content-Type: application/json.")
    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
    if charset and charset.group(1).lower() not in ("utf-8", "utf8"):
        raise ServingError(ErrorCode.INVALID_JSON, "The body must be JSON in UTF-8.")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ServingError(ErrorCode.INVALID_JSON, "A compressed body (Content-Encoding) is not accepted.")


async def read_body(
    request: Request, max_bytes: int, timeout_s: float, take: Take = _take_freely, pace: Pace = _USUAL
) -> bytes:
    """The whole body; `take` is told of each piece and may refuse it.

    Raises ServingError (413 too large, 400 too slow) or ClientLeft. What is on its way of a refused body is read and
    dropped by the server.
    """
    too_large = UnreadBody(ErrorCode.PAYLOAD_TOO_LARGE, f"The body is larger than {max_bytes} bytes.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        if request.headers.get("expect", "").lower() != "100-continue":
            await discard(request, int(declared))
        raise too_large
    chunks: list[bytes] = []
    size, begun = 0, asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(begun + min(timeout_s, pace.allowed_s(0))) as patience:
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                chunk = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size > max_bytes:
                    break
                take(len(chunk))
                chunks.append(chunk)
                patience.reschedule(begun + min(timeout_s, pace.allowed_s(size)))
                if not more:
                    return b"".join(chunks)
    except TimeoutError:
        raise UnreadBody(ErrorCode.INVALID_JSON, _too_slow(size, timeout_s, pace)) from None
    if more:
        await discard(request)
    raise too_large


def _too_slow(size: int, timeout_s: float, pace: Pace) -> str:
    if pace.allowed_s(size) < timeout_s:
        return f"The body came too slowly: {size} bytes in {pace.allowed_s(size):.0f} s."
    return f"The body did not arrive within {timeout_s:g} s."


async def discard(request: Request, num_bytes: int = _DISCARD_BYTES) -> None:
    """Read on for a while, so that the client gets to read the refusal. Raises ClientLeft."""
    left = min(num_bytes, _DISCARD_BYTES)
    try:
        async with asyncio.timeout(_DISCARD_S):
            while left > 0:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises ServingError (400, invalid_json).

    orjson itself refuses NaN, infinities, lone surrogates, bad UTF-8 and nesting beyond 1,024. What it does not refuse
    is an integer over 64 bits, which silently becomes a float.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServingError(ErrorCode.INVALID_JSON, f"The body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ServingError(ErrorCode.INVALID_JSON, "The body must be a JSON object.")
    if _LONG_NUMBER.search(body) and _has_huge_number(value):
        raise ServingError(
            ErrorCode.INVALID_JSON, "The body holds a number outside the range of signed 64-bit integers."
        )
    return value


def _has_huge_number(root: Any) -> bool:
    # No recursion: nesting may be deeper than the interpreter's stack.
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif type(value) in (int, float) and not -_INT64 <= value < _INT64:
            return True
    return False
