"""All logins of a running stack are exchanged while answers stream."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker.credentials import Login, find_login
from broker.roles import Role
from tests.support.counts import full_or
from tests.support.nats_wire import NatsWire
from tests.system.stack import KEY, Stack, echo_config, fetch, running
from tests.system.test_tls import tool

STREAMS = 8
NUM_TOKENS = 150
ROUNDS = full_or(10, reduced=1)

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def body(number: int) -> dict[str, Any]:
    fields = {"model": "echo", "prompt": f"prompt {number}", "max_tokens": NUM_TOKENS, "ignore_eos": True}
    return fields | {"seed": number, "temperature": 0.9, "stream": True}


async def stream(stack: Stack, number: int, has_begun: asyncio.Event) -> str:
    """The text of one answer. Every second one is in no journal."""
    headers = {"authorization": f"Bearer {KEY}"} | ({"x-inferflux-journal": "off"} if number % 2 else {})
    text, ended = "", False
    async with (
        httpx2.AsyncClient(base_url=stack.url, headers=headers, timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/completions", json=body(number)) as answer,
    ):
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                has_begun.set()
    assert ended
    return text


async def all_streams(stack: Stack, begun: list[asyncio.Event]) -> list[str]:
    return await asyncio.gather(*(stream(stack, number, begun[number]) for number in range(STREAMS)))


async def exchange(stack: Stack) -> str:
    """All logins, by the command for it; what that prints."""
    command = ("topology", "credentials", "--rotate", "all", "--data-dir", str(stack.data_dir))
    done = await asyncio.to_thread(tool, "inferflux", *command)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def test_streams_go_on_while_every_login_is_exchanged(tmp_path: Path) -> None:
    config = echo_config(tmp_path, "echo:random?rate=100", sequences=STREAMS)
    with running(tmp_path / "data", "--config", str(config)) as stack:
        folder = stack.data_dir / "nats" / "creds"
        pids = stack.pids()
        undisturbed = await all_streams(stack, [asyncio.Event() for _ in range(STREAMS)])
        for _ in range(ROUNDS):
            old = {role: find_login(folder, role) for role in (Role.EDGE, Role.WORKER, Role.TOPOLOGY)}
            begun = [asyncio.Event() for _ in range(STREAMS)]
            streaming = asyncio.create_task(all_streams(stack, begun))
            await asyncio.gather(*(each.wait() for each in begun))
            printed = await exchange(stack)
            while not streaming.done():
                printed += await exchange(stack)
            assert await streaming == undisturbed
            for role, login in old.items():
                assert isinstance(login, Login) and find_login(folder, role) != login
                with pytest.raises(PermissionError):
                    await NatsWire.open(stack.nats_port, login)
                assert login.password not in printed + stack.log_path.read_text()
        assert stack.pids() == pids
        answer = await asyncio.to_thread(fetch, f"{stack.url}/v1/completions", body={"prompt": "after"})
        assert answer["choices"][0]["finish_reason"]
