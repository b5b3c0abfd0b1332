"""What a policy is told about a request: one JSON document, and no secret in it."""

from typing import Any

from producer.edge.plan import Plan
from schemas.requests import ChatPrompt, Identity, Prompt, TextPrompt


def policy_input(identity: Identity, model: str, plan: Plan) -> dict[str, Any]:
    """`model` is the id that the client's name stands for."""
    sampling = plan.sampling[0]
    return {
        "identity": {"owner": identity.owner, "tenant": identity.tenant, "scopes": sorted(identity.scopes)},
        "endpoint": str(plan.endpoint),
        "model": model,
        "priority": str(plan.priority),
        "stream": plan.stream,
        "parameters": {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "repetition_penalty": sampling.repetition_penalty,
            "stop": list(sampling.stop),
        },
        "prompts": [_prompt(prompt) for prompt in plan.prompts],
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    if isinstance(prompt, TextPrompt):
        return {"kind": "text", "text": prompt.text}
    if isinstance(prompt, ChatPrompt):
        messages = [{"role": each.role, "content": each.content, "name": each.name} for each in prompt.messages]
        return {"kind": "chat", "messages": messages}
    return {"kind": "tokens", "num_tokens": len(prompt.token_ids)}
