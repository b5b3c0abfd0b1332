"""Files that are no good, and what is said of them; lines however a file is cut."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.edge.batch import checking
from producer.edge.batch.checking import Checked, Checker
from producer.edge.batch.lines import text_lines
from schemas.errors import ErrorCode, ServingError
from tests.support.counts import full_or

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "echo", "messages": []}}

NEXT = {**GOOD, "custom_id": "b"}


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def know_echo(model: str) -> None:
    if model != "echo":
        raise ServingError(ErrorCode.MODEL_NOT_FOUND, f"The model '{model}' does not exist.", param="model")


async def check(*lines: Any, max_bytes: int = 1000) -> Checked:
    data = b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in lines)
    return await Checker("/v1/chat/completions", max_bytes, know_echo).check(pieces(data, 7))


BAD: list[tuple[Any, str]] = [
    (b"{", "invalid_json_line"),
    (b"[1]", "invalid_json_line"),
    (b"\xff", "invalid_json_line"),
    ({**NEXT, "body": {"model": "echo", "seed": 2**70}}, "invalid_json_line"),
    ({"custom_id": "b"}, "missing_required_parameter"),
    ({**NEXT, "body": {}}, "missing_required_parameter"),
    ({**NEXT, "more": 1}, "unknown_parameter"),
    ({**NEXT, "method": "GET"}, "invalid_method"),
    ({**NEXT, "url": "/v1/completions"}, "invalid_url"),
    ({**NEXT, "custom_id": ""}, "invalid_parameter"),
    ({**NEXT, "custom_id": 7}, "invalid_parameter"),
    ({**NEXT, "body": []}, "invalid_parameter"),
    ({**NEXT, "body": {"model": "echo", "stream": True}}, "unsupported_parameter"),
    ({**NEXT, "body": {"model": "echo", "priority": 1}}, "unsupported_parameter"),
    ({**NEXT, "body": {"model": "echo", "service_tier": "flex"}}, "unsupported_parameter"),
    ({**NEXT, "body": {"model": "absent"}}, "model_not_found"),
    (GOOD, "duplicate_custom_id"),
    ({**NEXT, "body": {"model": "echo", "prompt": "x" * 2000}}, "line_too_large"),
]


@pytest.mark.parametrize(("bad", "code"), BAD, ids=[f"{n}-{code}" for n, (_, code) in enumerate(BAD)])
async def test_a_bad_line_is_named(bad: Any, code: str) -> None:
    """It is the third one: a blank line counts."""
    checked = await check(GOOD, b"", bad, {**GOOD, "custom_id": "z"})
    assert [(error.code, error.line) for error in checked.errors] == [(code, 3)]


async def test_good_lines_are_counted() -> None:
    assert await check(GOOD, b"  ", {**GOOD, "custom_id": "b"}, b"") == Checked(2, ())


async def test_a_file_without_lines_is_none() -> None:
    assert [error.code for error in (await check(b"\n\n")).errors] == ["empty_file"]


async def test_no_more_is_said_than_anybody_reads() -> None:
    checked = await check(*[b"{"] * 200)
    assert len(checked.errors) == checking.MAX_ERRORS


async def test_a_batch_has_so_many_lines_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MAX_LINES", 2)
    lines = [{**GOOD, "custom_id": name} for name in "abc"]
    assert (await check(*lines[:2])).errors == ()
    assert [error.code for error in (await check(*lines)).errors] == ["too_many_lines"]


@given(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line)), st.integers(1, 20))
async def test_lines_are_the_same_however_a_file_is_cut(lines: list[bytes], size: int) -> None:
    found = [each async for each in text_lines(pieces(b"\n".join(lines), size), 100)]
    assert found == [(n, line) for n, line in enumerate(lines, 1) if line and not line.isspace()]


@given(st.binary(max_size=300))
async def test_anything_is_checked(data: bytes) -> None:
    checked = await Checker("/v1/chat/completions", 200, know_echo).check(pieces(data, full_or(1, reduced=13)))
    assert checked.errors
