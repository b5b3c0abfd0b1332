"""Dead letters as people and tools see them. Text of a prompt only when it was asked for."""

import time
from dataclasses import asdict
from typing import Any

from broker.connection import Connection
from broker.dead_letters import DeadLetter, DeadLetters
from ops.errors import Failure
from schemas.requests import ChatPrompt, GenerateRequest, Prompt, TextPrompt

# As the answers' bodies show ids.
_PREFIXES = ("chatcmpl-", "cmpl-")


async def find_letter(connection: Connection, text: str) -> DeadLetter:
    """The dead letter of a request id, as it is or as a body shows it. Raises Failure when there is none."""
    try:
        letter = await DeadLetters(connection).find(bare_id(text))
    except ValueError:
        letter = None
    if letter is None:
        raise Failure(f"there is no dead letter {text}")
    return letter


def bare_id(text: str) -> str:
    """A request's id, given as it is or as an answer's body shows it."""
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text


def summary(letter: DeadLetter) -> dict[str, Any]:
    """One line of the list. Fields are None where the letter does not tell."""
    accepted = letter.accepted
    return {
        "id": letter.request_id,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(letter.at)),
        "model": letter.model,
        "priority": letter.priority or None,
        "owner": accepted.owner if accepted is not None else None,
        "tenant": letter.tenant or None,
        "reason": letter.reason or None,
        "attempts": letter.attempts,
    }


def details(letter: DeadLetter, request: GenerateRequest, *, with_text: bool) -> dict[str, Any]:
    """All that is known of it; of its prompt only the size, unless `with_text`."""
    return {
        **summary(letter),
        "owner": request.identity.owner,
        "endpoint": str(request.endpoint),
        "created": request.created,
        "timeout_s": request.deadline_ms / 1000 - request.created,
        "parameters": asdict(request.sampling),
        "labels": request.labels,
        "prompt": asdict(request.prompt) if with_text else prompt_size(request.prompt),
        "headers": letter.headers,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The same for people: one fact a line, nested ones with their names joined."""
    found = []
    for name, value in facts.items():
        if isinstance(value, tuple) and value and isinstance(value[0], dict):
            value = {str(number): each for number, each in enumerate(value, start=1)}
        if isinstance(value, dict):
            found += [f"{name}.{line}" for line in lines(value)]
        elif value is not None and value not in ((), ""):
            found.append(f"{name}: {value}")
    return found


def prompt_size(prompt: Prompt) -> dict[str, Any]:
    """How much it is, in place of what it says."""
    match prompt:
        case TextPrompt(text=text):
            return {"kind": prompt.kind, "characters": len(text)}
        case ChatPrompt(messages=messages):
            return {"kind": prompt.kind, "messages": len(messages), "characters": sum(len(m.content) for m in messages)}
        case _:
            return {"kind": prompt.kind, "tokens": len(prompt.token_ids)}
