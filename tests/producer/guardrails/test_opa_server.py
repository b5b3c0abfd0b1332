"""Asking OPA over HTTP, and every way in which it does not answer."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from producer.guardrails.decision import Decision
from producer.guardrails.errors import NoDecision
from producer.guardrails.opa_server import OpaServer
from tests.producer.guardrails.opa import running_opa
from tests.support.certificates import Authority

QUESTION: dict[str, Any] = {"prompts": [{"kind": "text", "text": "the prompt"}]}


async def refusal(engine: OpaServer, question: dict[str, Any] = QUESTION) -> str:
    with pytest.raises(NoDecision) as caught:
        await engine.decide(question)
    assert "the prompt" not in str(caught.value)
    return str(caught.value)


async def test_the_question_is_the_input_and_the_answer_the_result() -> None:
    async with running_opa() as opa:
        engine = OpaServer(opa.url, 5.0)
        opa.decide({"allow": False, "reason": "not on Sundays"})
        assert await engine.decide(QUESTION) == Decision(allow=False, reason="not on Sundays")
        assert opa.asked == [QUESTION]
        await engine.close()


async def test_the_same_question_is_asked_once_and_another_again() -> None:
    async with running_opa() as opa:
        engine = OpaServer(opa.url, 5.0)
        assert await engine.decide(QUESTION) == await engine.decide(QUESTION) == Decision(allow=True)
        assert len(opa.asked) == 1
        other = {"prompts": [{"kind": "text", "text": "another"}]}
        opa.decide(False)
        assert await engine.decide(other) == Decision(allow=False)
        long = {"prompts": [{"kind": "text", "text": "x" * 100_000}]}
        await engine.decide(long)
        await engine.decide(long)
        assert len(opa.asked) == 4
        await engine.close()


async def test_a_failure_is_not_remembered() -> None:
    async with running_opa() as opa:
        engine = OpaServer(opa.url, 5.0)
        opa.reply(b"", 500)
        assert "answered 500" in await refusal(engine)
        opa.decide(True)
        assert await engine.decide(QUESTION) == Decision(allow=True)
        await engine.close()


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"{}", 200, "undefined"),
        (b'{"result": null}', 200, "undefined"),
        (b'{"result": {"allow": 1}}', 200, "'allow'"),
        (b"<html>", 200, "not JSON"),
        (b"[]", 200, "not an object"),
        (b"", 200, "not JSON"),
        (b"x" * (2**20 + 1), 200, "too long"),
        (b'{"result": true}', 404, "answered 404"),
        (b'{"result": true}', 302, "answered 302"),
    ],
)
async def test_an_answer_that_is_none(content: bytes, status: int, why: str) -> None:
    async with running_opa() as opa:
        engine = OpaServer(opa.url, 5.0)
        opa.reply(content, status)
        assert why in await refusal(engine)
        await engine.close()


async def test_a_server_that_hangs_is_given_up_and_the_next_one_is_asked_anew() -> None:
    async with running_opa() as opa:
        engine = OpaServer(opa.url, 0.2)
        opa.hang()
        assert "did not answer within 0.2 s" in await refusal(engine)
        opa.decide(True)
        assert await engine.decide(QUESTION) == Decision(allow=True)
        await engine.close()


async def test_a_server_that_trickles_is_given_up_too() -> None:
    """Each byte comes in time, the answer does not."""
    stop, stopped = asyncio.Event(), asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not stop.is_set():
            writer.write(b" ")
            await asyncio.wait({asyncio.create_task(stop.wait())}, timeout=0.02)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        stopped.set()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    engine = OpaServer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", 0.3)
    assert "did not answer" in await refusal(engine)
    await engine.close()
    stop.set()
    await stopped.wait()
    server.close()
    await server.wait_closed()


async def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    assert "cannot be reached" in await refusal(OpaServer(f"http://127.0.0.1:{port}/v1/data/x", 5.0))


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server")
    async with running_opa(ssl_certfile=certificate.cert, ssl_keyfile=certificate.key) as opa:
        engine = OpaServer(opa.url, 5.0)
        assert "cannot be reached" in await refusal(engine)
        assert opa.asked == []
        await engine.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        trusting = OpaServer(opa.url, 5.0)
        assert await trusting.decide(QUESTION) == Decision(allow=True)
        await trusting.close()


async def test_closing_waits_for_those_who_ask() -> None:
    async with running_opa() as opa:
        engine = OpaServer(opa.url, 5.0)
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def answer() -> Response:
            reached.set()
            await go_on.wait()
            return await opa.allow()

        opa.answer = answer
        asking = asyncio.create_task(engine.decide(QUESTION))
        await reached.wait()
        await engine.close()
        go_on.set()
        assert await asking == Decision(allow=True)
