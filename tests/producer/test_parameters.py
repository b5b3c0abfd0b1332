"""The parameter rule: every parameter of the OpenAI API is served, or refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as TextParams

from producer.config import UnknownParameters
from producer.edge.openai_types import ChatCompletionRequest, CompletionRequest
from producer.edge.parameters import PARAMETERS, Support, check_parameters, parameters_of
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Endpoint

REFUSE, IGNORE = UnknownParameters.REFUSE, UnknownParameters.IGNORE
TYPES = {Endpoint.CHAT: ChatCompletionRequest, Endpoint.COMPLETIONS: CompletionRequest}
SDK = {Endpoint.CHAT: ChatParams, Endpoint.COMPLETIONS: TextParams}
ANY_JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_the_table_knows_every_parameter_of_the_sdk(endpoint: Endpoint) -> None:
    names = set(SDK[endpoint].__annotations__)
    assert names - set(parameters_of(endpoint)) == set()
    ours = {name for name, parameter in parameters_of(endpoint).items() if parameter.openai}
    # What we list as OpenAI's for both endpoints may belong to one of them only.
    assert ours - names <= {"service_tier", "safety_identifier", "prompt_cache_key", "store", "metadata"} | {
        "response_format",
        "best_of",
        "echo",
    }


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_exactly_the_served_parameters_have_a_type(endpoint: Endpoint) -> None:
    served = {name for name, parameter in parameters_of(endpoint).items() if parameter.support is Support.SERVED}
    assert served == set(TYPES[endpoint].model_fields)


def test_no_name_is_listed_twice_for_an_endpoint() -> None:
    for endpoint in Endpoint:
        names = [parameter.name for parameter in PARAMETERS if endpoint in parameter.endpoints]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_null_is_absent_for_every_parameter(endpoint: Endpoint) -> None:
    body = dict.fromkeys(parameters_of(endpoint))
    assert check_parameters(endpoint, body, REFUSE) == ({}, ())


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_neutral_values_of_what_is_not_served_pass(endpoint: Endpoint) -> None:
    for name, parameter in parameters_of(endpoint).items():
        for value in parameter.neutral:
            assert check_parameters(endpoint, {name: value}, REFUSE).values == {}


@given(st.sampled_from(Endpoint), st.data(), ANY_JSON)
def test_any_other_value_of_what_is_not_served_is_refused_by_name(
    endpoint: Endpoint, data: st.DataObject, value: Any
) -> None:
    unserved = [each for each in parameters_of(endpoint).values() if each.support is not Support.SERVED]
    parameter = data.draw(st.sampled_from(unserved))
    try:
        check_parameters(endpoint, {parameter.name: value}, IGNORE)
    except ServingError as error:
        assert (error.code, error.param) == (ErrorCode.UNSUPPORTED_PARAMETER, parameter.name)
        assert parameter.name in error.message
    else:
        assert value in parameter.neutral


@given(st.sampled_from(Endpoint), st.text(), ANY_JSON)
def test_an_unknown_name_is_refused_or_listed(endpoint: Endpoint, name: str, value: Any) -> None:
    if name in parameters_of(endpoint):
        return
    assert check_parameters(endpoint, {name: value}, IGNORE) == ({}, (name,))
    with pytest.raises(ServingError) as refused:
        check_parameters(endpoint, {name: value}, REFUSE)
    assert refused.value.code is ErrorCode.UNKNOWN_PARAMETER


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("temprature", "temperature"),
        ("max_new_tokens", "max_tokens"),
        ("repeat_penalty", "repetition_penalty"),
        ("stopp", "stop"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_known_one(name: str, nearest: str) -> None:
    with pytest.raises(ServingError) as refused:
        check_parameters(Endpoint.CHAT, {name: 1}, REFUSE)
    assert f"'{nearest}'" in refused.value.message
    assert refused.value.param == name


def test_booleans_are_no_numbers() -> None:
    for body in ({"n": True}, {"logprobs": 0}, {"store": 0}):
        with pytest.raises(ServingError):
            check_parameters(Endpoint.CHAT, body, REFUSE)


def test_stream_options_are_checked_by_name_too() -> None:
    good = {"stream_options": {"include_usage": True, "include_obfuscation": False}}
    assert check_parameters(Endpoint.CHAT, good, REFUSE).values == good
    for options, code in (
        ({"include_obfuscation": True}, ErrorCode.UNSUPPORTED_PARAMETER),
        ({"include_usag": True}, ErrorCode.UNKNOWN_PARAMETER),
    ):
        with pytest.raises(ServingError) as refused:
            check_parameters(Endpoint.CHAT, {"stream_options": options}, REFUSE)
        assert refused.value.code is code
        assert str(refused.value.param).startswith("stream_options.")


def test_a_very_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(ServingError) as refused:
        check_parameters(Endpoint.CHAT, {"x" * 10**6: 1}, REFUSE)
    assert len(refused.value.message) < 200
