"""Can the prompt fit? Without a tokenizer the edge refuses only what certainly cannot; the worker counts exactly."""

import math

from producer.edge.admission import Admission
from schemas.errors import ErrorCode, ServingError
from schemas.requests import ChatPrompt, Endpoint, Prompt, TextPrompt, TokenPrompt


async def estimate_size(admission: Admission) -> None:
    if not admission.serving:
        return
    bytes_per_token = admission.serving[0].bytes_per_token
    for prompt in admission.plan.prompts:
        admission.prompt_tokens_estimate += estimated_tokens(prompt, bytes_per_token)
        fewest = [(fewest_tokens(prompt, served.max_token_bytes), served.context) for served in admission.serving]
        if all(num_tokens >= context for num_tokens, context in fewest):
            raise _too_long(admission, *min(fewest))


def estimated_tokens(prompt: Prompt, bytes_per_token: float) -> int:
    """What the prompt probably comes to."""
    if isinstance(prompt, TokenPrompt):
        return len(prompt.token_ids)
    return math.ceil(num_bytes(prompt) / max(bytes_per_token, 0.1))


def fewest_tokens(prompt: Prompt, max_token_bytes: int) -> int:
    """What the prompt comes to at the very least."""
    if isinstance(prompt, TokenPrompt):
        return len(prompt.token_ids)
    return math.ceil(num_bytes(prompt) / max(max_token_bytes, 1))


def num_bytes(prompt: TextPrompt | ChatPrompt) -> int:
    if isinstance(prompt, TextPrompt):
        return len(prompt.text.encode())
    return sum(len(message.content.encode()) for message in prompt.messages)


def _too_long(admission: Admission, num_tokens: int, context: int) -> ServingError:
    return ServingError(
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        f"The prompt has at least {num_tokens} tokens; the context of '{admission.model.id}' holds {context}.",
        param="messages" if admission.plan.endpoint is Endpoint.CHAT else "prompt",
    )
