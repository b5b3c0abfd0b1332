"""Bodies: size, time, and JSON that is what it says."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from producer.edge.body import ClientLeft, Pace, UnreadBody, parse_json, read_body, read_json
from schemas.errors import ErrorCode, ServingError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e18, 1e18, allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def make_request(messages: list[dict[str, Any]], headers: dict[str, str] | None = None) -> Request:
    """A request whose body arrives as `messages`, then nothing more for ever."""
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_every_json_object_is_read(value: dict[str, Any]) -> None:
    assert parse_json(orjson.dumps(value)) == value


@given(st.binary())
def test_anything_else_is_a_refusal_and_nothing_worse(body: bytes) -> None:
    try:
        assert isinstance(parse_json(body), dict)
    except ServingError as error:
        assert error.code is ErrorCode.INVALID_JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 18446744073709551616}',
        b'{"a": [{"b": -99999999999999999999}]}',
        b'{"a": 9223372036854775808}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": 1,}',
        b"{'a': 1}",
    ],
)
def test_traps_of_json_are_refused(body: bytes) -> None:
    with pytest.raises(ServingError) as refused:
        parse_json(body)
    assert refused.value.code is ErrorCode.INVALID_JSON


def test_long_digits_in_text_and_deep_nesting_are_no_problem() -> None:
    assert parse_json(b'{"a": "12345678901234567890", "b": 9223372036854775807}')["b"] == 2**63 - 1
    assert parse_json(b'{"n": 1234567890123456789, "a": ' + b"[" * 1000 + b"]" * 1000 + b"}")


async def test_a_body_in_pieces_is_joined() -> None:
    assert await read_body(make_request([part(b"ab", True), part(b"", True), part(b"c")]), 10, 1) == b"abc"


@pytest.mark.parametrize("headers", [{}, {"content-length": "11"}, {"content-length": "nonsense"}])
async def test_a_body_above_the_limit_is_413_and_read_to_its_end(headers: dict[str, str]) -> None:
    request = make_request([part(b"x" * 6, True), part(b"x" * 5)], headers)
    with pytest.raises(UnreadBody) as refused:
        await read_body(request, 10, 1)
    assert refused.value.status == 413


async def test_a_client_that_waits_for_continue_is_refused_unread() -> None:
    request = make_request([], {"content-length": "11", "expect": "100-continue"})
    with pytest.raises(UnreadBody) as refused:
        await read_body(request, 10, 1)
    assert refused.value.status == 413


async def test_a_slow_body_is_a_refusal() -> None:
    with pytest.raises(UnreadBody) as refused:
        await read_body(make_request([part(b"x", True)]), 10, 0.01)
    assert refused.value.status == 400


async def test_a_body_that_stalls_is_given_up_long_before_its_time() -> None:
    with pytest.raises(UnreadBody, match="too slowly: 1 bytes"):
        await read_body(make_request([part(b"x", True)]), 10, 600, pace=Pace(0.01, 1000))


async def test_bytes_that_come_earn_time() -> None:
    """The second piece comes when the grace is long over."""
    second: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    pieces: list[Any] = [part(b"x" * 1000, True)]

    async def receive() -> dict[str, Any]:
        if pieces:
            asyncio.get_running_loop().call_later(0.1, second.set_result, part(b"y"))
            return dict(pieces.pop())
        return await second

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    assert len(await read_body(request, 2000, 600, pace=Pace(0.01, 10))) == 1001


async def test_a_client_that_leaves_amid_its_body_is_gone() -> None:
    with pytest.raises(ClientLeft):
        await read_body(make_request([part(b"x", True), {"type": "http.disconnect"}]), 10, 1)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "Application/JSON; charset=UTF-8"},
        {"content-type": "application/vnd.api+json"},
        {"content-encoding": "identity"},
    ],
)
async def test_json_content_types_pass(headers: dict[str, str]) -> None:
    value, body = await read_json(make_request([part(b'{"a": 1}')], headers), 100, 1)
    assert value == {"a": 1}
    assert body == b'{"a": 1}'


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": ""},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_other_content_types_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ServingError) as refused:
        await read_json(make_request([part(b"{}")], headers), 100, 1)
    assert refused.value.code is ErrorCode.INVALID_JSON
