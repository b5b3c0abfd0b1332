"""The default model in real processes: it answers, many at once, and nothing is mixed up."""

import asyncio
import json
import re
from collections.abc import Iterator

import openai
import pytest

from tests.support.models import find_model, why_no_llama
from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import KEY, Stack, running, until

pytestmark = [pytest.mark.llama, pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "smollm2-135m"
SEQUENCES = 32
QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    path = find_model()
    if path is None:
        pytest.skip(why_no_llama() or "no model")
    folder = tmp_path_factory.mktemp("real")
    # One thread: two would wait for each other at every node of the graph while a test's own processes take turns.
    model = {"source": str(path), "sequences": SEQUENCES, "context": 512, "threads": 1, "aliases": ["gpt-4o-mini"]}
    config = folder / "server.yaml"
    config.write_text(json.dumps({"models": {MODEL: model}}))
    with running(folder / "data", "--config", str(config)) as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=240) as made:
        yield made


def test_the_capital_of_france_arrives_in_pieces(client: openai.OpenAI) -> None:
    pieces = [
        chunk.choices[0].delta.content
        for chunk in client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True)
        if chunk.choices and chunk.choices[0].delta.content
    ]
    assert "Paris" in "".join(pieces)
    assert len(pieces) >= 5


def test_streamed_and_whole_answers_are_the_same(client: openai.OpenAI) -> None:
    options = {"model": "gpt-4o-mini", "messages": QUESTION, "temperature": 0.8, "seed": 5, "max_tokens": 24}
    # Both begin with the same KV, that of a third.
    client.chat.completions.create(**options | {"max_tokens": 1})  # type: ignore[call-overload]
    whole = client.chat.completions.create(**options)  # type: ignore[call-overload]
    chunks = list(client.chat.completions.create(**options, stream=True))  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert whole.model == MODEL
    assert whole.system_fingerprint
    assert whole.usage is not None and whole.usage.completion_tokens <= 24


def test_completions_continue_a_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="One, two, three, four,", temperature=0, max_tokens=4)
    assert "five" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"


def test_the_assistants_last_message_is_continued(client: openai.OpenAI) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": "The capital of France is the city of"}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=3)
    assert "Paris" in (answer.choices[0].message.content or "")


def test_the_model_is_described(client: openai.OpenAI) -> None:
    model = client.models.retrieve(MODEL).to_dict()
    assert model["max_model_len"] == 512
    assert client.models.retrieve("gpt-4o-mini").id == MODEL


def test_a_prompt_beyond_the_context_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="word " * 600)
    assert caught.value.code == "context_length_exceeded"


async def test_thirty_two_at_once_are_batched_and_never_mixed_up(stack: Stack) -> None:
    secrets = [f"{7919 * (number + 3) % 90000 + 10000}" for number in range(SEQUENCES)]

    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=280) as client:

        async def ask(secret: str) -> str:
            messages = [
                {"role": "system", "content": "You repeat what you are told."},
                {"role": "user", "content": f"The secret number is {secret}. What is the secret number?"},
            ]
            parts, reason = [], None
            stream = await client.chat.completions.create(
                model=MODEL, messages=messages, temperature=0, max_tokens=40, stream=True
            )
            async for chunk in stream:
                parts.append(chunk.choices[0].delta.content or "")
                reason = chunk.choices[0].finish_reason or reason
            assert reason in ("stop", "length")
            return "".join(parts)

        answers = await asyncio.gather(*(ask(secret) for secret in secrets))
    for secret, answer in zip(secrets, answers, strict=True):
        assert not set(re.findall(r"\d{5}", answer)) & (set(secrets) - {secret})
    assert sum(secret in answer for secret, answer in zip(secrets, answers, strict=True)) >= SEQUENCES // 2
    assert steps_with_at_least(stack, 16) > 0
    await asyncio.to_thread(until, lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


def steps_with_at_least(stack: Stack, num_sequences: int) -> float:
    """How many steps had that many sequences in their batch, from the histogram `batch_size`."""
    buckets = {
        float(match[1]): value
        for name, value in stack.metrics().items()
        if name.startswith("inferflux_batch_size_bucket") and (match := re.search(r'le="([^"]+)"', name))
    }
    below = max(bound for bound in buckets if bound < num_sequences)
    return buckets[float("inf")] - buckets[below]
