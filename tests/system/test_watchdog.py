"""A device that hangs: its worker is taken out, everybody else is answered as if nothing had been, the cause is put
aside.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.counts import full_or
from tests.system.broker_state import QueueState, dead_letters, queue_state
from tests.system.stack import KEY, Stack, echo_config, fetch, running, until

STREAMS = 6
ROUNDS = full_or(5, reduced=1)
POISON_AFTER = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    config = echo_config(tmp_path, "echo:random?rate=40&hang_on=has%20no%20end", sequences=2 * STREAMS)
    limit = {"INFERFLUX_RUNTIME__STUCK_STEP_S": "1"}
    with running(tmp_path / "data", "--config", str(config), "--workers", "2", env=limit) as started:
        yield started


async def answer(client: openai.AsyncOpenAI, number: int, started: asyncio.Queue[int]) -> str:
    parts: list[str] = []
    stream = await client.completions.create(
        model="echo",
        prompt=f"prompt {number}",
        max_tokens=120,
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


async def answers(stack: Stack, *, endless: bool) -> tuple[list[str], Exception | None]:
    """The texts of all streams, and what became of a call among them whose step never ends."""
    started: asyncio.Queue[int] = asyncio.Queue()
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(client, number, started)) for number in range(STREAMS)]
            for _ in range(STREAMS):
                await started.get()
            if endless:
                with pytest.raises(openai.APIStatusError) as raised:
                    await client.completions.create(model="echo", prompt="this has no end", max_tokens=20)
                failure = raised.value
        return [task.result() for task in tasks], failure


def workers_replaced(stack: Stack) -> int:
    """How often `up` has started another worker for one that left because of its step."""
    ending = r"worker-\d ended \(a step of echo has not ended for 1 s\) and is started again"
    return len(re.findall(ending, stack.log_path.read_text()))


def test_a_hanging_step_takes_its_worker_out_and_nobody_else(stack: Stack) -> None:
    undisturbed, _ = asyncio.run(answers(stack, endless=False))
    assert len(set(undisturbed)) == STREAMS
    for number in range(1, ROUNDS + 1):
        texts, failure = asyncio.run(answers(stack, endless=True))
        assert texts == undisturbed
        assert isinstance(failure, openai.InternalServerError)
        assert failure.code == "poisoned"
        assert len(dead_letters(stack)) == number
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
        until(lambda: len(stack.run["workers"]) == 2, "both workers are back")
        assert workers_replaced(stack) == number * POISON_AFTER
    answered = fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "still there", "max_tokens": 3})
    assert answered["usage"]["completion_tokens"] > 0
