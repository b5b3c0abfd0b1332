"""The parameter rule: honour or refuse by name.

One table lists every top-level parameter of chat and plain completions: OpenAI's all, and those of vLLM and
llama-server that people bring along. Served ones are validated by `openai_types`. Of the others, neutral values pass,
because they ask for what happens anyway; any other value is 400 `unsupported_parameter`. A name that is not in the
table is 400 `unknown_parameter` with the nearest known one, or ignored and listed when so configured.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, NamedTuple

from producer.config import UnknownParameters
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Endpoint


class Support(StrEnum):
    SERVED = "served"
    LATER = "later"
    REFUSED = "refused"


class Parameter(NamedTuple):
    """`neutral`: values that pass although the parameter is not served (null always does)."""

    name: str
    support: Support
    endpoints: frozenset[Endpoint]
    neutral: tuple[Any, ...] = ()
    note: str = ""
    openai: bool = True


_BOTH = frozenset(Endpoint)
_CHAT = frozenset({Endpoint.CHAT})
_TEXT = frozenset({Endpoint.COMPLETIONS})


def _served(name: str, endpoints: frozenset[Endpoint] = _BOTH, note: str = "", openai: bool = True) -> Parameter:
    return Parameter(name, Support.SERVED, endpoints, (), note, openai)


def _later(name: str, endpoints: frozenset[Endpoint], *neutral: Any, note: str = "", openai: bool = True) -> Parameter:
    return Parameter(name, Support.LATER, endpoints, neutral, note, openai)


def _refused(
    name: str, endpoints: frozenset[Endpoint], *neutral: Any, note: str = "", openai: bool = True
) -> Parameter:
    return Parameter(name, Support.REFUSED, endpoints, neutral, note, openai)


# What llama-server and Ollama call a parameter that is served here under another name.
_ELSEWHERE = {
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "max_new_tokens": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    "n_probs": "logprobs",
}
_LABEL = "a label: logged as a hash"

PARAMETERS: tuple[Parameter, ...] = (
    _served("model", note="an id or alias; absent or `default` is the default model"),
    _served("messages", _CHAT, "content as text or text parts; a last message from the assistant is continued"),
    _served("prompt", _TEXT, "string, token ids, or a list of either"),
    _served("max_tokens", note="a maximum, cut to the room in the context"),
    _served("max_completion_tokens", _CHAT, "the same as `max_tokens`"),
    _served("temperature"),
    _served("top_p"),
    _served("presence_penalty"),
    _served("frequency_penalty"),
    _served("seed"),
    _served("stop", note="a string or up to 16"),
    _served("logit_bias"),
    _served("stream"),
    _served("stream_options", note="`include_usage`"),
    _served("service_tier", _BOTH, "priority, auto, default, flex"),
    _served("user", note=_LABEL),
    _served("safety_identifier", note=_LABEL),
    _served("prompt_cache_key", note=_LABEL),
    _served("priority", note="-10 to 10, larger is sooner (vLLM: the reverse)", openai=False),
    _served("top_k", note="-1 and 0 are off", openai=False),
    _served("min_p", openai=False),
    _served("repetition_penalty", openai=False),
    _served("ignore_eos", openai=False),
    _served("timeout", note="seconds; the header X-Request-Timeout may say less", openai=False),
    _served("continue_final_message", _CHAT, "as vLLM names it", openai=False),
    _served("add_generation_prompt", _CHAT, "false only together with a continued message", openai=False),
    _later("n", _BOTH, 1),
    _later("best_of", _BOTH, 1),
    _later("logprobs", _CHAT, False),
    _later("logprobs", _TEXT, False),
    _later("top_logprobs", _CHAT, 0),
    _later("response_format", _BOTH, {"type": "text"}),
    _later("tools", _CHAT, []),
    _later("tool_choice", _CHAT, "none", "auto"),
    _later("parallel_tool_calls", _CHAT, True, False, note="without tools it changes nothing"),
    _later("functions", _CHAT, []),
    _later("function_call", _CHAT, "none", "auto"),
    _later("store", _BOTH, False),
    _later("metadata", _BOTH, {}),
    _later("reasoning_effort", _CHAT, "none"),
    _later("echo", _BOTH, False),
    _later("suffix", _TEXT, ""),
    _refused("audio", _CHAT),
    _refused("modalities", _CHAT, ["text"]),
    _refused("moderation", _CHAT),
    _refused("prediction", _CHAT),
    _refused("prompt_cache_options", _CHAT, {}),
    _refused("prompt_cache_retention", _CHAT, "in_memory", "in-memory"),
    _refused("verbosity", _CHAT, "medium"),
    _refused("web_search_options", _CHAT),
    _later("min_tokens", _BOTH, 0, openai=False),
    _later("stop_token_ids", _BOTH, [], openai=False),
    _later("include_stop_str_in_output", _BOTH, False, openai=False),
    _later("guided_json", _BOTH, openai=False),
    _later("guided_regex", _BOTH, openai=False),
    _later("guided_choice", _BOTH, openai=False),
    _later("guided_grammar", _BOTH, openai=False),
    _later("structured_outputs", _BOTH, openai=False),
    _later("grammar", _BOTH, "", openai=False),
    _later("chat_template", _CHAT, openai=False),
    _later("chat_template_kwargs", _CHAT, {}, openai=False),
    _later("prompt_logprobs", _BOTH, False, openai=False),
    _refused("skip_special_tokens", _BOTH, True, openai=False),
    _refused("spaces_between_special_tokens", _BOTH, True, openai=False),
    _refused("add_special_tokens", _CHAT, False, openai=False),
    _refused("add_special_tokens", _TEXT, True, openai=False),
    _refused("use_beam_search", _BOTH, False, openai=False),
    _refused("length_penalty", _BOTH, 1, openai=False),
    _refused("truncate_prompt_tokens", _BOTH, openai=False),
    _refused("allowed_token_ids", _BOTH, openai=False),
    _refused("bad_words", _BOTH, [], openai=False),
    _refused("logits_processors", _BOTH, [], openai=False),
    _refused("return_tokens_as_token_ids", _BOTH, False, openai=False),
    _refused("documents", _CHAT, [], openai=False),
    _refused("cache_prompt", _BOTH, True, openai=False),
    _refused("typical_p", _BOTH, 1, openai=False),
    _refused("mirostat", _BOTH, 0, openai=False),
)

_TABLES: dict[Endpoint, dict[str, Parameter]] = {
    endpoint: {parameter.name: parameter for parameter in PARAMETERS if endpoint in parameter.endpoints}
    for endpoint in Endpoint
}
_STREAM_OPTIONS: dict[str, tuple[Any, ...]] = {"include_usage": (), "include_obfuscation": (False,)}
_MAX_SHOWN = 80


class Checked(NamedTuple):
    """Served parameters that were given, and the names of unknown ones that were ignored."""

    values: dict[str, Any]
    ignored: tuple[str, ...]


def parameters_of(endpoint: Endpoint) -> Mapping[str, Parameter]:
    return _TABLES[endpoint]


def check_parameters(endpoint: Endpoint, body: Mapping[str, Any], unknown: UnknownParameters) -> Checked:
    """Sort a body's top-level names by the rule. null means absent. Raises ServingError (400) naming the parameter."""
    table = _TABLES[endpoint]
    values: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in body.items():
        parameter = table.get(name)
        if parameter is None:
            if unknown is UnknownParameters.REFUSE:
                raise _unknown(name, table)
            ignored.append(name)
        elif value is None:
            continue
        elif parameter.support is Support.SERVED:
            values[name] = value
        elif not is_neutral(value, parameter.neutral):
            raise _unsupported(parameter)
    _check_stream_options(values.get("stream_options"))
    return Checked(values, tuple(ignored))


def is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Equality that tells booleans from numbers: `n: true` is not `n: 1`."""
    return any(isinstance(value, bool) == isinstance(allowed, bool) and value == allowed for allowed in neutral)


def _check_stream_options(options: Any) -> None:
    if not isinstance(options, dict):
        return
    for name, value in options.items():
        param = f"stream_options.{_shown(name)}"
        if name not in _STREAM_OPTIONS:
            raise ServingError(ErrorCode.UNKNOWN_PARAMETER, f"Unknown parameter: '{param}'.", param=param)
        neutral = _STREAM_OPTIONS[name]
        if value is not None and neutral and not is_neutral(value, neutral):
            raise ServingError(
                ErrorCode.UNSUPPORTED_PARAMETER, f"Parameter '{param}' is not supported with this value.", param=param
            )


def _unsupported(parameter: Parameter) -> ServingError:
    passes = ", ".join(repr(value) for value in parameter.neutral)
    only = f" Only the neutral value passes: {passes}." if parameter.neutral else ""
    return ServingError(
        ErrorCode.UNSUPPORTED_PARAMETER,
        f"Parameter '{parameter.name}' is not supported by this server.{only}",
        param=parameter.name,
    )


def _unknown(name: str, table: Mapping[str, Parameter]) -> ServingError:
    shown = _shown(name)
    nearest = [_ELSEWHERE[shown]] if shown in _ELSEWHERE else get_close_matches(shown, table, 1, 0.6)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return ServingError(ErrorCode.UNKNOWN_PARAMETER, f"Unknown parameter: '{shown}'.{hint}", param=shown)


def _shown(name: str) -> str:
    return name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "…"
