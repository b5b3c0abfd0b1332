"""Can the prompt fit? Without a tokenizer the edge refuses only what certainly cannot; the worker counts exactly."""

import math

from producer.edge.admission import Admission
from schemas.errors import ErrorCode, ServingError
from schemas.requests import ChatPrompt, Endpoint, Prompt, TextPrompt, TokenPrompt

# Of a model that nobody serves just now: typical for English and a large vocabulary.
_BYTES_PER_TOKEN = 4.0


async def estimate_size(admission: Admission) -> None:
    bytes_per_token = admission.serving[0].bytes_per_token if admission.serving else _BYTES_PER_TOKEN
    admission.prompt_tokens = [estimated_tokens(prompt, bytes_per_token) for prompt in admission.plan.prompts]
    if not admission.serving:
        return
    for prompt in admission.plan.prompts:
        fewest = [(fewest_tokens(prompt, served.max_token_bytes), served.context) for served in admission.serving]
        if all(num_tokens >= context for num_tokens, context in fewest):
            raise _too_long(admission, *min(fewest))


def estimated_tokens(prompt: Prompt, bytes_per_token: float) -> int:
    """What the prompt probably comes to; at least 1."""
    if isinstance(prompt, TokenPrompt):
        return max(len(prompt.token_ids), 1)
    return max(math.ceil(num_bytes(prompt) / max(bytes_per_token, 0.1)), 1)


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
