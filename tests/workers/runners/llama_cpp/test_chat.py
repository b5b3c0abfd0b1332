"""The real model through its own chat template."""

import jinja2.sandbox
import pytest

from tests.workers.runners.llama_cpp.driver import Driver, Feed

pytestmark = pytest.mark.llama


def render(driver: Driver, question: str) -> str:
    assert driver.facts.chat_template is not None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment()
    return environment.from_string(driver.facts.chat_template).render(
        messages=[{"role": "user", "content": question}],
        add_generation_prompt=True,
        bos_token=driver.facts.bos_token,
        eos_token=driver.facts.eos_token,
    )


def test_it_knows_the_capital_of_france(real: Driver) -> None:
    prompt = real.tokenizer.encode(
        render(real, "What is the capital of France? Answer in one sentence."), add_bos=True, parse_special=True
    )
    reply = real.greedy(real.create(), prompt, 24)
    assert "Paris" in real.text(reply)
    assert reply[-1] in real.tokenizer.end_ids


@pytest.mark.parallel
def test_many_are_answered_at_once_and_not_mixed_up(real: Driver) -> None:
    words = ["apple", "bridge", "candle", "dragon"]
    handles = [real.create() for _ in words]
    prompts = [render(real, f"Repeat this word: {word}") for word in words]
    token_ids = [real.tokenizer.encode(prompt, add_bos=True, parse_special=True) for prompt in prompts]
    replies: list[list[int]] = [[] for _ in words]
    for _ in range(12):
        feeds = [Feed(handle, tokens) for handle, tokens in zip(handles, token_ids, strict=True)]
        token_ids = [[int(row.argmax())] for row in real.forward(*feeds)]
        for reply, tokens in zip(replies, token_ids, strict=True):
            reply += tokens
    for word, reply in zip(words, replies, strict=True):
        assert word in real.text(reply).lower()
        assert not any(other in real.text(reply).lower() for other in words if other != word)
