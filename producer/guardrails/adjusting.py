"""A plan as a decision wants it: texts replaced, tokens capped, its class lowered. Pure."""

from dataclasses import replace

from producer.edge.plan import Plan
from producer.guardrails.decision import Decision
from schemas.requests import ChatMessage, ChatPrompt, Prompt, SamplingParams, TextPrompt


def adjusted(plan: Plan, decision: Decision) -> Plan:
    """What the decision leaves alone stays the same object."""
    if decision.redact:
        plan = replace(plan, prompts=tuple(_redacted(prompt, decision) for prompt in plan.prompts))
    if decision.max_tokens is not None:
        plan = replace(plan, sampling=tuple(_capped(each, decision.max_tokens) for each in plan.sampling))
    if decision.priority is not None and decision.priority.rank > plan.priority.rank:
        plan = replace(plan, priority=decision.priority)
    return plan


def _redacted(prompt: Prompt, decision: Decision) -> Prompt:
    if isinstance(prompt, TextPrompt):
        return TextPrompt(decision.redacted(prompt.text))
    if isinstance(prompt, ChatPrompt):
        return replace(prompt, messages=tuple(_redacted_message(each, decision) for each in prompt.messages))
    return prompt


def _redacted_message(message: ChatMessage, decision: Decision) -> ChatMessage:
    name = message.name if message.name is None else decision.redacted(message.name)
    return replace(message, content=decision.redacted(message.content), name=name)


def _capped(sampling: SamplingParams, max_tokens: int) -> SamplingParams:
    if sampling.max_tokens is not None and sampling.max_tokens <= max_tokens:
        return sampling
    return replace(sampling, max_tokens=max_tokens)
