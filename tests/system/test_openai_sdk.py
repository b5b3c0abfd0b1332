"""The official client against real processes: what a user of it sees, sync and async, streamed and not."""

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.system.stack import ADMIN_KEY, KEY, Stack, running, until

QUESTION = [{"role": "user", "content": "say it back: Grüße, 世界 🌍"}]
ANSWER = "say it back: Grüße, 世界 🌍"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("sdk") / "data", "--backend", "echo") as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=30) as made:
        yield made


def test_chat_answers_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=QUESTION)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "echo"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == len(ANSWER.encode()) + 1  # and the end of the turn


def test_chat_streams_token_by_token(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == len(ANSWER.encode()) + 1
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_prompt_that_was_computed_before_is_counted_as_cached(client: openai.OpenAI, stack: Stack) -> None:
    options = {"model": "echo", "messages": [{"role": "user", "content": "twice the same"}]}
    client.chat.completions.create(**options)  # type: ignore[call-overload]
    again = client.chat.completions.create(**options)  # type: ignore[call-overload]
    stream = client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    for usage in (again.usage, list(stream)[-1].usage):
        assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1

    until(lambda: stack.metric_sum("inferflux_prefix_hits_total") >= 2, "the hits are exported")
    assert stack.metric_sum("inferflux_prefix_matched_tokens_total") >= 2 * (again.usage.prompt_tokens - 1)
    assert stack.metric_sum("inferflux_prefix_misses_total") >= 1
    assert any('state="cached"' in key and value > 0 for key, value in stack.metrics().items())


def test_completions_take_text_tokens_and_lists(client: openai.OpenAI) -> None:
    assert client.completions.create(model="echo", prompt="abc").choices[0].text == "abc"
    assert client.completions.create(model="echo", prompt=[97, 98]).choices[0].text == "ab"
    answer = client.completions.create(model="echo", prompt=["one", "two", "three"])
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "one"), (1, "two"), (2, "three")]


def test_streamed_completions_of_a_list_keep_their_index(client: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(model="echo", prompt=["left", "right"], stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: "left", 1: "right"}


async def test_many_async_streams_at_once_are_never_mixed_up(stack: Stack) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:

        async def ask(number: int) -> str:
            question = [{"role": "user", "content": f"the secret of {number} is {number * 7919}"}]
            parts = []
            async for chunk in await client.chat.completions.create(model="echo", messages=question, stream=True):
                parts.append(chunk.choices[0].delta.content or "")
            return "".join(parts)

        answers = await asyncio.gather(*(ask(number) for number in range(64)))
    assert answers == [f"the secret of {number} is {number * 7919}" for number in range(64)]


def test_models_are_listed_and_described(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]
    model = client.models.retrieve("echo")
    assert model.id == "echo"
    assert model.to_dict()["max_model_len"] > 0


@pytest.mark.parametrize(
    ("changes", "error", "code", "param"),
    [
        ({"model": "no/such"}, openai.NotFoundError, "model_not_found", "model"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_parameter", "temperature"),
        ({"n": 2}, openai.BadRequestError, "unsupported_parameter", "n"),
        ({"extra_body": {"temprature": 1}}, openai.BadRequestError, "unknown_parameter", "temprature"),
        ({"messages": []}, openai.BadRequestError, "invalid_parameter", "messages"),
        ({"extra_body": {"priority": 9}}, openai.PermissionDeniedError, "priority_not_allowed", "priority"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_parameter", "max_tokens"),
    ],
)
def test_bad_calls_raise_the_class_code_and_param(
    client: openai.OpenAI, changes: dict[str, object], error: type[openai.APIStatusError], code: str, param: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": "echo", "messages": QUESTION, **changes})  # type: ignore[call-overload]
    assert caught.value.code == code
    assert caught.value.param == param
    assert caught.value.request_id


def test_a_wrong_key_is_an_authentication_error(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.url}/v1", api_key="nobody", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_admin_key_may_jump_the_queue(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=ADMIN_KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model="echo", messages=QUESTION, extra_body={"priority": 9})
    assert answer.choices[0].message.content == ANSWER
