"""From prompts to tokens, and what is refused before the first one."""

import pytest

from schemas.errors import ErrorCode
from schemas.events import FinishReason
from schemas.requests import ChatMessage, ChatPrompt, TextPrompt, TokenPrompt
from tests.workers.engine.harness import Steps, chat, request
from workers.engine.admission import Admission
from workers.engine.config import EngineConfig
from workers.engine.messages import EngineRequest
from workers.engine.sampler import SamplerScratch
from workers.runners.base import Opened, RunnerSpec
from workers.runners.echo import EchoRunner
from workers.runners.echo.tokenizer import BOS, CHAT_TEMPLATE


def opened(**spec: object) -> Opened:
    return EchoRunner().open(RunnerSpec("echo", "echo", **spec))  # type: ignore[arg-type]


def prompt_ids(source: EngineRequest, model: Opened | None = None) -> list[int]:
    sequence = Admission(model or opened(), EngineConfig(), SamplerScratch(261)).prepare(source, 0)
    return sequence.token_ids


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CHAT_TEMPLATE.replace("{{ bos_token }}", "")])
def test_bos_comes_exactly_once_whoever_writes_it(template: str) -> None:
    assert prompt_ids(request("a", chat("hi")), opened(chat_template=template)).count(BOS) == 1
    assert prompt_ids(request("a", "hi")).count(BOS) == 1
    assert prompt_ids(request("a", "<|bos|>hi")).count(BOS) == 1


def test_a_prompt_of_tokens_is_used_as_it_is() -> None:
    assert prompt_ids(request("a", TokenPrompt((1, 2, 3)))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("prompt", "param"),
    [(TokenPrompt(()), "prompt"), (TokenPrompt((9999,)), "prompt"), (TokenPrompt((-1,)), "prompt")],
)
def test_token_prompts_that_cannot_be_run_are_refused(prompt: TokenPrompt, param: str) -> None:
    [answer] = Steps().run(request("a", prompt))
    assert answer.error is not None
    assert (answer.error.code, answer.error.param) == (ErrorCode.INVALID_PARAMETER, param)


def test_a_bias_for_a_token_that_does_not_exist_is_refused() -> None:
    [answer] = Steps().run(request("a", "x", logit_bias=((100_000, 1.0),)))
    assert answer.error is not None
    assert (answer.error.code, answer.error.param) == (ErrorCode.INVALID_PARAMETER, "logit_bias")


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        (TextPrompt("x" * 100), "prompt"),
        (ChatPrompt((ChatMessage("user", "x" * 100),)), "messages"),
        (TextPrompt("x" * 1_000_000), "prompt"),
        (ChatPrompt((ChatMessage("user", "x" * 1_000_000),)), "messages"),
    ],
)
def test_a_prompt_without_room_for_one_token_is_refused_before_the_first(prompt, param) -> None:
    steps = Steps(context=64)
    [answer] = steps.run(request("a", prompt))
    assert answer.error is not None
    assert (answer.error.code, answer.error.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, param)
    assert "64" in answer.error.message or "characters" in answer.error.message
    assert not answer.token_ids


def test_a_prompt_that_leaves_room_for_one_token_gets_one() -> None:
    [answer] = Steps(context=64).run(request("a", TokenPrompt((65,) * 63), ignore_eos=True))
    assert (len(answer.token_ids), answer.reason) == (1, FinishReason.LENGTH)


@pytest.mark.parametrize(("max_tokens", "expected"), [(None, 20), (7, 7), (30, 30), (100_000, 64 - 12), (0, 0)])
def test_max_tokens_is_cut_to_the_room_and_absent_means_the_models_maximum(max_tokens, expected) -> None:
    steps = Steps(context=64, max_output_tokens=20)
    [answer] = steps.run(request("a", TextPrompt("x" * 10), max_tokens=max_tokens, ignore_eos=True))
    assert answer.reason is FinishReason.LENGTH
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, expected)
    assert len(answer.token_ids) == expected


class WithoutTemplate(EchoRunner):
    def __init__(self, template: str | None) -> None:
        super().__init__()
        self._template = template

    def open(self, spec: RunnerSpec) -> Opened:
        facts, capabilities = super().open(spec)
        values = {name: getattr(facts, name) for name in facts.__slots__} | {"chat_template": self._template}
        return Opened(type(facts)(**values), capabilities)


@pytest.mark.parametrize("template", [None, "{% if %}"])
def test_without_a_usable_template_completions_work_and_chat_is_refused(template: str | None) -> None:
    steps = Steps("echo", runner=WithoutTemplate(template))
    completion, answer = steps.run(request("a", "hello"), request("b", chat("hello")))
    assert completion.text == "hello"
    assert answer.error is not None
    assert answer.error.code is ErrorCode.NO_CHAT_TEMPLATE


def test_a_failing_template_fails_its_request_alone() -> None:
    template = "{{ messages[0].content + 1 if 'bad' in messages[0].content else messages[0].content }}"
    good, bad = Steps(chat_template=template).run(request("a", chat("good")), request("b", chat("bad")))
    assert good.reason is not None
    assert bad.error is not None
    assert bad.error.code is ErrorCode.INTERNAL
