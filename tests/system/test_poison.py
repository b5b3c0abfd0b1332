"""A prompt that kills its worker, among others that it takes with it: they are answered, it is put aside."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.counts import full_or
from tests.system.broker_state import QueueState, dead_letters, queue_state
from tests.system.stack import KEY, Stack, echo_config, running, until

INNOCENTS = 7
ROUNDS = full_or(3, reduced=1)
DEADLY = "this one kills"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """One worker, so that all are in one process; slow prompts, so that all are in one step."""
    config = echo_config(tmp_path, "echo:repeat?die_on=kills&prefill_rate=2000", sequences=INNOCENTS + 1)
    with running(tmp_path / "data", "--config", str(config), "--workers", "1") as started:
        yield started


async def submit_all(stack: Stack, prompts: list[str]) -> list[str | openai.APIStatusError]:
    """The answers to all prompts, sent at once."""
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        calls = [client.completions.create(model="echo", prompt=prompt, max_tokens=500) for prompt in prompts]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    texts: list[str | openai.APIStatusError] = []
    for answer in answers:
        if isinstance(answer, openai.APIStatusError):
            texts.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            texts.append(answer.choices[0].text)
    return texts


def test_what_dies_with_a_deadly_prompt_is_answered_and_not_put_aside_with_it(stack: Stack) -> None:
    for number in range(1, ROUNDS + 1):
        innocents = [f"innocent {number}.{each} " * 5 for each in range(INNOCENTS)]
        prompts = [*innocents[:3], DEADLY, *innocents[3:]]
        answers = asyncio.run(submit_all(stack, prompts))
        refusal = answers.pop(3)
        assert answers == innocents
        assert isinstance(refusal, openai.InternalServerError)
        assert refusal.code == "poisoned"
        assert refusal.response.headers["x-should-retry"] == "false"
        assert len(dead_letters(stack)) == number
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
