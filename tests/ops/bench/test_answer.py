"""Times belong to content, counts to usage."""

import json
from typing import Any

import pytest

from ops.bench.answer import Answer, error_text
from ops.bench.errors import RequestFailed


def event(choice: dict[str, Any] | None = None, usage: dict[str, int] | None = None) -> bytes:
    choices = [] if choice is None else [{"index": 0, **choice}]
    return b"data: " + json.dumps({"choices": choices, "usage": usage}).encode() + b"\n\n"


USAGE = event(usage={"prompt_tokens": 51, "completion_tokens": 5})
DONE = b"data: [DONE]\n\n"


def test_first_token_is_the_first_text_not_an_empty_piece() -> None:
    answer = Answer(sent_at=10.0)
    answer.feed(event({"text": ""}), 11.0)
    answer.feed(event({"text": None}), 11.5)
    answer.feed(event({"text": "A"}), 12.0)
    answer.feed(event({"text": "B"}), 14.0)
    answer.feed(event({}), 15.0)
    answer.feed(USAGE + DONE, 16.0)
    sample = answer.finish(17.0)
    assert sample.ttft_s == 2.0
    assert (sample.last_content_at, sample.ended_at) == (14.0, 17.0)


def test_tokens_are_those_of_usage_not_of_chunks() -> None:
    answer = Answer(sent_at=0.0)
    answer.feed(event({"text": "several tokens in one chunk"}), 1.0)
    answer.feed(event({"text": "and more"}), 3.0)
    answer.feed(USAGE + DONE, 4.0)
    sample = answer.finish(4.0)
    assert (sample.prompt_tokens, sample.completion_tokens) == (51, 5)
    assert sample.tpot_s == pytest.approx(2.0 / 4)


def test_pieces_of_one_arrival_came_at_one_time_and_each_is_told() -> None:
    told = []
    answer = Answer(0.0, lambda: told.append(True))
    answer.feed(event({"text": "a"}) + event({"text": "b"}), 1.0)
    answer.feed(event({"text": "c"}) + USAGE + DONE, 2.5)
    assert answer.finish(3.0).content_at == (1.0, 2.5)
    assert len(told) == 3


def test_one_token_has_no_time_per_further_token() -> None:
    answer = Answer(sent_at=0.0)
    answer.feed(event({"text": "x"}, {"prompt_tokens": 1, "completion_tokens": 1}) + DONE, 1.0)
    assert answer.finish(1.0).tpot_s is None


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (event({"text": "x"}) + USAGE, r"without \[DONE\]"),
        (USAGE + DONE, "no content"),
        (event({"text": "x"}) + DONE, "no usage"),
        (event({"text": "x"}, {"prompt_tokens": 1}) + DONE, "no usage"),
    ],
)
def test_what_is_missing_is_named(stream: bytes, reason: str) -> None:
    answer = Answer(sent_at=0.0)
    answer.feed(stream, 1.0)
    with pytest.raises(RequestFailed, match=reason):
        answer.finish(2.0)


def test_an_error_in_the_stream_fails_the_answer() -> None:
    with pytest.raises(RequestFailed, match="out of memory"):
        Answer(0.0).feed(b'data: {"error": {"message": "out of memory"}}\n\n', 1.0)


def test_what_is_not_json_fails_the_answer() -> None:
    with pytest.raises(RequestFailed, match="not JSON"):
        Answer(0.0).feed(b"data: {\n\n", 1.0)


def test_error_text_of_anything() -> None:
    assert error_text({"error": {"message": "busy"}}) == "busy"
    assert error_text("<html>") == "<html>"
    assert error_text({"detail": 1}) == "{'detail': 1}"
