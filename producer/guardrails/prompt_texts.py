"""The texts in a prompt that guardrails read: messages of every role with the names in them, and plain prompts."""

from collections.abc import Iterator

from producer.edge.plan import Plan
from schemas.requests import ChatPrompt, Endpoint, TextPrompt, TokenPrompt


def prompt_texts(plan: Plan) -> Iterator[str]:
    for prompt in plan.prompts:
        if isinstance(prompt, TextPrompt):
            yield prompt.text
        elif isinstance(prompt, ChatPrompt):
            for message in prompt.messages:
                yield message.content
                if message.name is not None:
                    yield message.name


def has_token_ids(plan: Plan) -> bool:
    return any(isinstance(prompt, TokenPrompt) for prompt in plan.prompts)


def prompt_param(plan: Plan) -> str:
    """What the client calls it."""
    return "messages" if plan.endpoint is Endpoint.CHAT else "prompt"
