"""The load generator against a server whose answers are known."""

import pytest

from ops.bench.closed_loop import LoopResult, closed_loop
from ops.bench.errors import RequestFailed
from ops.bench.plan import Load
from ops.bench.prompts import prompt, prompts
from tests.ops.bench.chat_server import ChatServer, running


def whole_answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def measure(chat: ChatServer, load: Load) -> LoopResult:
    async with running(chat) as target:
        return await closed_loop(target, prompts(), load)


@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_counts_are_right(concurrency: int) -> None:
    chat = ChatServer(prompt_tokens=5, completion_tokens=9)
    result = await measure(chat, Load(concurrency, 24, max_tokens=9))
    assert [(sample.prompt_tokens, sample.completion_tokens) for sample in result.samples] == [(5, 9)] * 24
    assert len(chat.requests) == 24
    assert chat.max_open_answers == concurrency


async def test_times_are_in_order() -> None:
    result = await measure(ChatServer(), Load(2, 6, max_tokens=64))
    for sample in result.samples:
        assert sample.sent_at <= sample.first_content_at <= sample.last_content_at <= sample.ended_at
        assert sample.ended_at - sample.sent_at <= result.wall_s


async def test_each_request_has_its_own_prompt_and_the_settings() -> None:
    chat = ChatServer()
    await measure(chat, Load(4, 12, max_tokens=16))
    texts = [request["prompt"] for request in chat.requests]
    assert sorted(texts) == sorted(prompt(number) for number in range(12))
    for request in chat.requests:
        assert "Authorization: Bearer secret" in request["head"]
        assert (request["max_tokens"], request["temperature"], request["ignore_eos"]) == (16, 0, True)
        assert request["stream_options"] == {"include_usage": True}


async def test_connections_are_not_used_again() -> None:
    chat = ChatServer()
    await measure(chat, Load(2, 10, max_tokens=64))
    assert chat.num_connections == 10
    assert all("Connection: close" in request["head"] for request in chat.requests)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (whole_answer("503 Busy", b'{"error": {"message": "full"}}'), "HTTP 503: full"),
        (whole_answer("400 Bad", b"<html>"), "HTTP 400: <html>"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\ndata: \r\n", "broke in mid-answer"),
        (b"", "broke in mid-answer"),
        (whole_answer("200 OK", b"data: [DONE]\n\n"), "no content"),
        (b"what is this", "not HTTP"),
    ],
)
async def test_a_bad_answer_ends_the_load_with_its_reason(answer: bytes, reason: str) -> None:
    chat = ChatServer(failing={5: answer})
    with pytest.raises(RequestFailed, match=reason):
        await measure(chat, Load(3, 30, max_tokens=64))
    assert len(chat.requests) < 30


async def test_nothing_listens() -> None:
    async with running(ChatServer()) as target:
        pass
    with pytest.raises(RequestFailed, match="does not take a connection"):
        await closed_loop(target, prompts(), Load(2, 2, max_tokens=1))
