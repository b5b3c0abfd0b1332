"""From the OpenAI surface to our own terms. Pure: bodies in, plans and requests out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from producer.edge.errors import invalid
from producer.edge.ids import hash_label, part_id
from producer.edge.messages import check_messages, to_prompt
from producer.edge.openai_types import ChatCompletionRequest, CompletionRequest, GenerationParameters
from producer.edge.plan import Plan
from schemas.errors import ServingError
from schemas.requests import (
    Endpoint,
    GenerateRequest,
    Identity,
    PriorityClass,
    Prompt,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
)

_Parameters = TypeVar("_Parameters", bound=GenerationParameters)

_LABELS = ("user", "safety_identifier", "prompt_cache_key")
_TIER_CLASSES = {
    "priority": PriorityClass.HIGH,
    "auto": PriorityClass.NORMAL,
    "default": PriorityClass.NORMAL,
    "flex": PriorityClass.LOW,
}
# A union's own messages list every branch; these say what is wanted.
_WANTED = {
    "prompt": "must be a non-empty string, a list of token ids, or a list of either",
    "stop": "must be a non-empty string or up to 16 of them, each of at most 1024 characters",
    "content": "must be a string or a list of text parts",
}
_MAX_TOKEN_ID = 2**31 - 1
# The smallest nucleus there is: only the likeliest token.
_MIN_TOP_P = 1e-6
_TOO_MANY_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan is checked against. `mint_seed` is asked once for each prompt of a call without a seed."""

    max_prompts: int
    max_timeout_s: float
    high_priority_threshold: int
    mint_seed: Callable[[], int]


def chat_plan(values: Mapping[str, Any], limits: Limits) -> Plan:
    """Read the served parameters of a chat completion. Raises ServingError (400)."""
    check_messages(values.get("messages"))
    body = _validate(ChatCompletionRequest, values)
    prompt = to_prompt(body.messages, body.continue_final_message, body.add_generation_prompt)
    return _plan(Endpoint.CHAT, body, (prompt,), _max_tokens(body.max_tokens, body.max_completion_tokens), limits)


def completion_plan(values: Mapping[str, Any], limits: Limits) -> Plan:
    """Read the served parameters of a plain completion. Raises ServingError (400)."""
    body = _validate(CompletionRequest, values)
    prompts = _prompts(body.prompt)
    if len(prompts) > limits.max_prompts:
        raise invalid(f"'prompt' may hold at most {limits.max_prompts} prompts, not {len(prompts)}.", "prompt")
    return _plan(Endpoint.COMPLETIONS, body, prompts, body.max_tokens, limits)


def requests_of(
    plan: Plan,
    *,
    request_id: str,
    edge: str,
    model: str,
    created: int,
    deadline_ms: int,
    identity: Identity,
    traceparent: str | None = None,
    journaled: bool = True,
) -> list[GenerateRequest]:
    """One request for each prompt of the plan, in order."""
    return [
        GenerateRequest(
            request_id=part_id(request_id, index),
            edge=edge,
            model=model,
            endpoint=plan.endpoint,
            created=created,
            deadline_ms=deadline_ms,
            identity=identity,
            prompt=prompt,
            sampling=sampling,
            priority=plan.priority,
            labels=plan.labels,
            traceparent=traceparent,
            journaled=journaled,
        )
        for index, (prompt, sampling) in enumerate(zip(plan.prompts, plan.sampling, strict=True))
    ]


def _validate(model: type[_Parameters], values: Mapping[str, Any]) -> _Parameters:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid_field(error) from None


def _invalid_field(error: ValidationError) -> ServingError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    param, wanted = "", None
    for part in first["loc"]:
        if isinstance(part, int):
            param += f"[{part}]"
            continue
        param += f".{part}" if param else part
        wanted = _WANTED.get(part)
        # What follows a union's name are its branches and their insides.
        if wanted is not None or part == "logit_bias":
            break
    if first["type"] == "missing":
        return invalid(f"'{param}' is required.", param)
    if first["type"] == "too_short":
        return invalid(f"'{param}' must not be empty.", param)
    text = first["msg"].removeprefix("Input ")
    return invalid(f"'{param}' {wanted or text[:1].lower() + text[1:]}.", param)


def _plan(
    endpoint: Endpoint,
    body: GenerationParameters,
    prompts: tuple[Prompt, ...],
    max_tokens: int | None,
    limits: Limits,
) -> Plan:
    if body.stream_options is not None and not body.stream:
        raise invalid("'stream_options' needs 'stream': true.", "stream_options")
    if body.timeout is not None:
        check_timeout(body.timeout, limits.max_timeout_s, "timeout")
    priority, priority_param = _priority(body, limits.high_priority_threshold)
    return Plan(
        endpoint=endpoint,
        model=body.model,
        prompts=prompts,
        sampling=tuple(_sampling(body, max_tokens, limits.mint_seed) for _ in prompts),
        priority=priority,
        priority_param=priority_param,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        timeout_s=body.timeout,
        labels={name: hash_label(value) for name in _LABELS if (value := getattr(body, name)) is not None},
    )


def check_timeout(timeout_s: float, max_timeout_s: float, param: str) -> None:
    """Raises ServingError (400) unless 0 < timeout ≤ the longest this edge can promise."""
    if not 0 < timeout_s <= max_timeout_s:
        raise invalid(f"'{param}' must be more than 0 and at most {max_timeout_s:g} seconds.", param)


def _prompts(prompt: str | list[int] | list[str] | list[list[int]]) -> tuple[Prompt, ...]:
    if isinstance(prompt, str):
        return (TextPrompt(prompt),)
    if isinstance(prompt[0], int):
        return (TokenPrompt(tuple(_as_ids(prompt))),)
    return tuple(TextPrompt(one) if isinstance(one, str) else TokenPrompt(tuple(_as_ids(one))) for one in prompt)


def _as_ids(tokens: Any) -> list[int]:
    ids: list[int] = tokens
    return ids


def _max_tokens(max_tokens: int | None, max_completion_tokens: int | None) -> int | None:
    if max_tokens is not None and max_completion_tokens is not None and max_tokens != max_completion_tokens:
        raise invalid(
            "'max_tokens' and 'max_completion_tokens' mean the same and say different things.", "max_completion_tokens"
        )
    return max_tokens if max_completion_tokens is None else max_completion_tokens


def _priority(body: GenerationParameters, high_threshold: int) -> tuple[PriorityClass, str]:
    if body.priority is not None and body.service_tier is not None:
        raise invalid("Give 'priority' or 'service_tier', not both.", "service_tier")
    if body.service_tier is not None:
        return _TIER_CLASSES[body.service_tier], "service_tier"
    number = body.priority or 0
    if number >= high_threshold:
        return PriorityClass.HIGH, "priority"
    return (PriorityClass.NORMAL if number >= 0 else PriorityClass.LOW), "priority"


def _sampling(body: GenerationParameters, max_tokens: int | None, mint_seed: Callable[[], int]) -> SamplingParams:
    seed = mint_seed() if body.seed is None else body.seed & (2**63 - 1)
    top_k = body.top_k or 0
    return SamplingParams(
        seed=seed,
        max_tokens=None if max_tokens is None else min(max_tokens, _TOO_MANY_TOKENS),
        temperature=_given(body.temperature, 1.0),
        top_p=max(_given(body.top_p, 1.0), _MIN_TOP_P),
        top_k=max(top_k, 0),
        min_p=_given(body.min_p, 0.0),
        presence_penalty=_given(body.presence_penalty, 0.0),
        frequency_penalty=_given(body.frequency_penalty, 0.0),
        repetition_penalty=_given(body.repetition_penalty, 1.0),
        stop=_stop(body.stop),
        logit_bias=_logit_bias(body.logit_bias or {}),
        ignore_eos=bool(body.ignore_eos),
    )


def _given(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _logit_bias(biases: Mapping[str, float]) -> tuple[tuple[int, float], ...]:
    read = {}
    for text, bias in biases.items():
        if not (text.isascii() and text.isdigit()) or int(text) > _MAX_TOKEN_ID:
            raise invalid("The keys of 'logit_bias' must be token ids.", "logit_bias")
        read[int(text)] = float(bias)
    return tuple(sorted(read.items()))
