"""From bodies to plans and requests."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.config import UnknownParameters
from producer.edge.parameters import check_parameters, parameters_of
from producer.edge.plan import Plan
from producer.edge.translate import Limits, chat_plan, completion_plan, requests_of
from schemas.codec import decode_request, encode_request
from schemas.errors import ErrorCode, ServingError
from schemas.requests import (
    ChatMessage,
    ChatPrompt,
    Endpoint,
    Identity,
    PriorityClass,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
)
from tests.producer.test_parameters import ANY_JSON

LIMITS = Limits(max_prompts=4, max_timeout_s=100, high_priority_threshold=5, mint_seed=lambda: 7)
USER = {"role": "user", "content": "hi"}


def chat(**values: Any) -> Plan:
    return chat_plan({"messages": [USER], **values}, LIMITS)


def text(prompt: Any, **values: Any) -> Plan:
    return completion_plan({"prompt": prompt, **values}, LIMITS)


def refusal(make: Any, **values: Any) -> ServingError:
    with pytest.raises(ServingError) as refused:
        make(**values)
    assert refused.value.status == 400
    return refused.value


def test_defaults() -> None:
    plan = chat()
    assert plan.prompts == (ChatPrompt((ChatMessage("user", "hi"),)),)
    assert plan.sampling == (SamplingParams(seed=7),)
    assert (plan.model, plan.priority, plan.stream, plan.include_usage) == (None, PriorityClass.NORMAL, False, False)
    assert (plan.timeout_s, plan.labels, plan.service_tier) == (None, {}, "default")


def test_every_sampling_parameter_arrives() -> None:
    sampling = chat(
        seed=-1,
        max_tokens=5,
        temperature=0,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.1,
        stop=["a", "b"],
        logit_bias={"5": -100, "3": 1.5},
        ignore_eos=True,
    ).sampling[0]
    assert sampling == SamplingParams(
        seed=2**63 - 1,
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        presence_penalty=-2.0,
        frequency_penalty=2.0,
        repetition_penalty=1.1,
        stop=("a", "b"),
        logit_bias=((3, 1.5), (5, -100.0)),
        ignore_eos=True,
    )


def test_off_and_extreme_values() -> None:
    assert {chat(top_k=value).sampling[0].top_k for value in (-1, 0)} == {0}
    assert 0 < chat(top_p=0).sampling[0].top_p < 1e-3
    assert chat(max_tokens=2**62).sampling[0].max_tokens == 2**31 - 1
    assert chat(stop="x").sampling[0].stop == ("x",)
    assert len(chat(stop=["x"] * 16).sampling[0].stop) == 16


def test_the_two_names_of_max_tokens_agree_or_are_refused() -> None:
    assert chat(max_completion_tokens=5).sampling[0].max_tokens == 5
    assert chat(max_completion_tokens=5, max_tokens=5).sampling[0].max_tokens == 5
    assert refusal(chat, max_completion_tokens=5, max_tokens=6).param == "max_completion_tokens"


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 1e300}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10.0}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"²": 1}}, "logit_bias"),
        ({"logit_bias": {"9999999999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {str(index): 1 for index in range(1025)}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"priority": 11}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"service_tier": "auto", "priority": 1}, "service_tier"),
        ({"ignore_eos": "yes"}, "ignore_eos"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 101}, "timeout"),
        ({"user": 5}, "user"),
        ({"user": "x" * 1025}, "user"),
        ({"model": 5}, "model"),
        ({"model": "x" * 257}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "name": ""}]}, "messages[0].name"),
    ],
)
def test_bad_values_are_refused_by_name(values: dict[str, Any], param: str) -> None:
    error = refusal(chat, **values)
    assert (error.code, error.param) == (ErrorCode.INVALID_PARAMETER, param)
    assert param.split(".")[0].split("[")[0] in error.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages[0].role"),
        ({"role": "function", "content": "x", "name": "f"}, "messages[0].role"),
        ({"role": "assistant", "content": "x", "tool_calls": [{}]}, "messages[0].tool_calls"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "content": None, "refusal": "no"}, "messages[0].refusal"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text", "text": ""}, {"type": "file"}]}, "messages[0].content[1].type"),
    ],
)
def test_what_would_change_the_prompt_and_is_not_served_is_refused(message: dict[str, Any], param: str) -> None:
    error = refusal(chat, messages=[message])
    assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, param)


def messages_of(plan: Plan) -> list[tuple[str, str]]:
    prompt = plan.prompts[0]
    assert isinstance(prompt, ChatPrompt)
    return [(message.role, message.content) for message in prompt.messages]


def test_messages_are_made_fit_for_templates() -> None:
    plan = chat(
        messages=[
            {"role": "developer", "content": "a"},
            {"role": "system", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
            {"role": "user", "content": "hi", "unknown": {"deep": [1]}, "tool_calls": [], "refusal": None},
            {"role": "system", "content": "later"},
        ]
    )
    assert messages_of(plan) == [("system", "a\n\nb\nc"), ("user", "hi"), ("system", "later")]


def test_names_are_kept_and_named_system_messages_are_not_merged() -> None:
    plan = chat(messages=[{"role": "system", "content": "a"}, {"role": "system", "content": "b", "name": "x"}, USER])
    assert messages_of(plan)[:2] == [("system", "a"), ("system", "b")]
    prompt = plan.prompts[0]
    assert isinstance(prompt, ChatPrompt) and prompt.messages[1].name == "x"


SYSTEMS = st.lists(st.sampled_from(["system", "developer", "user", "assistant"]), min_size=1, max_size=6)


@given(SYSTEMS)
def test_merging_system_messages_loses_nothing(roles: list[str]) -> None:
    plan = chat(messages=[{"role": role, "content": f"<{index}>"} for index, role in enumerate(roles)])
    joined = "".join(content for _, content in messages_of(plan)).replace("\n", "")
    assert joined == "".join(f"<{index}>" for index in range(len(roles)))


ASSISTANT = {"role": "assistant", "content": "The"}


@pytest.mark.parametrize(
    ("messages", "values", "continues"),
    [
        ([USER], {}, False),
        ([USER, ASSISTANT], {}, True),
        ([USER, ASSISTANT], {"continue_final_message": True}, True),
        ([USER, ASSISTANT], {"continue_final_message": True, "add_generation_prompt": False}, True),
        ([USER, ASSISTANT], {"add_generation_prompt": False}, True),
        ([USER, ASSISTANT], {"continue_final_message": False}, False),
        ([USER, ASSISTANT], {"add_generation_prompt": True}, False),
        ([USER], {"add_generation_prompt": True}, False),
        ([USER], {"continue_final_message": False}, False),
    ],
)
def test_a_last_message_from_the_assistant_goes_on(
    messages: list[Any], values: dict[str, Any], continues: bool
) -> None:
    prompt = chat(messages=messages, **values).prompts[0]
    assert isinstance(prompt, ChatPrompt)
    assert prompt.continue_last is continues


@pytest.mark.parametrize(
    ("messages", "values", "param"),
    [
        ([USER], {"continue_final_message": True}, "continue_final_message"),
        ([ASSISTANT], {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ([USER], {"add_generation_prompt": False}, "add_generation_prompt"),
        (
            [ASSISTANT],
            {"continue_final_message": False, "add_generation_prompt": False},
            "add_generation_prompt",
        ),
    ],
)
def test_continuations_that_cannot_be_are_refused(messages: list[Any], values: dict[str, Any], param: str) -> None:
    assert refusal(chat, messages=messages, **values).param == param


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", (TextPrompt("a"),)),
        ([1, 2], (TokenPrompt((1, 2)),)),
        (["a", "b"], (TextPrompt("a"), TextPrompt("b"))),
        ([[1], [2, 3]], (TokenPrompt((1,)), TokenPrompt((2, 3)))),
    ],
)
def test_the_four_forms_of_a_prompt(prompt: Any, prompts: tuple[Any, ...]) -> None:
    plan = text(prompt)
    assert plan.prompts == prompts
    assert len(plan.sampling) == len(prompts)


@pytest.mark.parametrize(
    "prompt", ["", [], [""], [[]], [1, "a"], ["a", [1]], [True], [-1], [2**31], [1.5], {"a": 1}, 5, ["a"] * 5]
)
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert refusal(text, prompt=prompt).param == "prompt"


def test_a_missing_prompt_is_named() -> None:
    with pytest.raises(ServingError) as refused:
        completion_plan({}, LIMITS)
    assert refused.value.param == "prompt"


def test_a_given_seed_is_the_same_for_every_prompt_and_a_minted_one_is_not() -> None:
    seeds = iter(range(100))
    limits = Limits(4, 100, 5, lambda: next(seeds))
    minted = completion_plan({"prompt": ["a", "b"]}, limits).sampling
    assert minted[0].seed != minted[1].seed
    given_seed = completion_plan({"prompt": ["a", "b"], "seed": 3}, limits).sampling
    assert given_seed[0].seed == given_seed[1].seed == 3


@pytest.mark.parametrize(
    ("values", "priority", "tier"),
    [
        ({}, PriorityClass.NORMAL, "default"),
        ({"priority": 10}, PriorityClass.HIGH, "priority"),
        ({"priority": 5}, PriorityClass.HIGH, "priority"),
        ({"priority": 4}, PriorityClass.NORMAL, "default"),
        ({"priority": 0}, PriorityClass.NORMAL, "default"),
        ({"priority": -1}, PriorityClass.LOW, "flex"),
        ({"priority": -10}, PriorityClass.LOW, "flex"),
        ({"service_tier": "priority"}, PriorityClass.HIGH, "priority"),
        ({"service_tier": "auto"}, PriorityClass.NORMAL, "default"),
        ({"service_tier": "default"}, PriorityClass.NORMAL, "default"),
        ({"service_tier": "flex"}, PriorityClass.LOW, "flex"),
    ],
)
def test_priorities_become_classes(values: dict[str, Any], priority: PriorityClass, tier: str) -> None:
    plan = chat(**values)
    assert (plan.priority, plan.service_tier) == (priority, tier)


def test_labels_travel_as_hashes() -> None:
    labels = chat(user="alice", safety_identifier="s", prompt_cache_key="k").labels
    assert set(labels) == {"user", "safety_identifier", "prompt_cache_key"}
    assert "alice" not in labels.values()


def test_requests_carry_the_plan_and_survive_the_wire() -> None:
    plan = text(["a", "b"], user="me", priority=-1)
    requests = requests_of(
        plan, request_id="r", edge="e1", model="m", created=1, deadline_ms=2, identity=Identity("alice")
    )
    assert [request.request_id for request in requests] == ["r", "r-1"]
    assert [request.prompt for request in requests] == [TextPrompt("a"), TextPrompt("b")]
    assert {request.priority for request in requests} == {PriorityClass.LOW}
    assert [decode_request(encode_request(request)) for request in requests] == requests


@given(st.sampled_from(Endpoint), st.data())
def test_any_values_are_a_plan_or_a_400(endpoint: Endpoint, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(parameters_of(endpoint)))
    body = data.draw(st.dictionaries(names, ANY_JSON, max_size=4))
    required = {"messages": [USER]} if endpoint is Endpoint.CHAT else {"prompt": "x"}
    make = chat_plan if endpoint is Endpoint.CHAT else completion_plan
    try:
        checked = check_parameters(endpoint, required | body, UnknownParameters.REFUSE)
        plan = make(checked.values, LIMITS)
    except ServingError as error:
        assert error.status == 400
        assert error.param
    else:
        identity = Identity("a")
        for request in requests_of(
            plan, request_id="r", edge="e", model="m", created=1, deadline_ms=2, identity=identity
        ):
            assert decode_request(encode_request(request)) == request
