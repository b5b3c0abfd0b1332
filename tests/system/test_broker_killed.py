"""The broker is killed with streams live: the clients notice a pause and nothing else."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.counts import full_or
from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import KEY, Stack, alive, echo_config, fetch, running, until

STREAMS = 16
ROUNDS = full_or(5, reduced=2)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    config = echo_config(tmp_path, "echo:random?rate=50", sequences=STREAMS)
    with running(tmp_path / "data", "--config", str(config)) as started:
        yield started


async def answer(client: openai.AsyncOpenAI, number: int, *, started: asyncio.Queue[int]) -> str:
    parts: list[str] = []
    stream = await client.completions.create(
        model="echo",
        prompt=f"prompt {number}",
        max_tokens=150,
        temperature=0.9 if number % 2 else 0.0,
        seed=number,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    async for chunk in stream:
        if not parts:
            started.put_nowait(number)
        parts += [choice.text for choice in chunk.choices]
    return "".join(parts)


async def answers(stack: Stack, *, kill: bool) -> list[str]:
    started: asyncio.Queue[int] = asyncio.Queue()
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(client, number, started=started)) for number in range(STREAMS)]
            for _ in range(STREAMS):
                await started.get()
            if kill:
                os.kill(stack.run["nats"]["pid"], signal.SIGKILL)
        return [task.result() for task in tasks]


def test_streams_survive_the_broker_being_killed(stack: Stack) -> None:
    undisturbed = asyncio.run(answers(stack, kill=False))
    assert len(set(undisturbed)) == STREAMS
    for _ in range(ROUNDS):
        pid = stack.run["nats"]["pid"]
        assert asyncio.run(answers(stack, kill=True)) == undisturbed
        assert not alive(pid)
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


def test_a_request_that_meets_no_broker_is_answered_when_it_is_back(stack: Stack) -> None:
    for number in range(ROUNDS):
        os.kill(stack.run["nats"]["pid"], signal.SIGKILL)
        answer = fetch(
            f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 5, "seed": number}
        )
        assert answer["usage"]["completion_tokens"] <= 5
