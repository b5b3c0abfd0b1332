"""Chat messages as clients send them, into messages for a chat template. Pure.

Refused by name before the types are looked at: what would change the prompt and is not served (tool calls, images).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from producer.edge.errors import invalid, unsupported
from producer.edge.openai_types import Message, TextPart
from schemas.requests import ChatMessage, ChatPrompt

ROLES = ("system", "developer", "user", "assistant")
_UNSERVED_ROLES = ("tool", "function")
_UNSERVED_FIELDS = ("tool_calls", "function_call", "tool_call_id", "audio", "refusal")
_UNSERVED_PARTS = ("image_url", "input_audio", "file", "refusal", "video_url", "audio_url")


def check_messages(messages: Any) -> None:
    """Raises ServingError (400) naming what is not served. Everything else about the types is left to validation."""
    if not isinstance(messages, list):
        return
    for index, message in enumerate(messages):
        if isinstance(message, dict):
            _check_message(message, f"messages[{index}]")


def _check_message(message: dict[str, Any], where: str) -> None:
    role = message.get("role")
    if role in _UNSERVED_ROLES:
        raise unsupported(f"Messages with the role '{role}' are not supported.", f"{where}.role")
    if isinstance(role, str) and role not in ROLES:
        raise invalid(f"'{where}.role' must be one of {', '.join(ROLES)}.", f"{where}.role")
    for name in _UNSERVED_FIELDS:
        if message.get(name):
            raise unsupported(f"'{name}' in a message is not supported.", f"{where}.{name}")
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(part, f"{where}.content[{index}]")


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _UNSERVED_PARTS:
        raise unsupported(f"Content parts of type '{kind}' are not supported, only 'text'.", f"{where}.type")
    if kind != "text":
        raise invalid(f"'{where}' must be a content part of type 'text'.", f"{where}.type")


def to_prompt(messages: Sequence[Message], continue_final: bool | None, add_generation: bool | None) -> ChatPrompt:
    """The prompt, whose last message is continued when it is the assistant's and nothing else was asked for."""
    continue_last = _continues_last(messages[-1].role == "assistant", continue_final, add_generation)
    return ChatPrompt(tuple(_merge_leading_system(_plain(message) for message in messages)), continue_last)


def _continues_last(from_assistant: bool, continue_final: bool | None, add_generation: bool | None) -> bool:
    if continue_final and add_generation:
        raise invalid(
            "'continue_final_message' and 'add_generation_prompt' exclude each other.", "continue_final_message"
        )
    if continue_final and not from_assistant:
        raise invalid("'continue_final_message' needs a last message from the assistant.", "continue_final_message")
    continues = from_assistant and continue_final is not False and not add_generation
    if add_generation is False and not continues:
        raise unsupported(
            "'add_generation_prompt': false is supported only where the last message is continued.",
            "add_generation_prompt",
        )
    return continues


def _plain(message: Message) -> ChatMessage:
    # No template in use knows `developer`: it is the newer name of `system`.
    role = "system" if message.role == "developer" else message.role
    return ChatMessage(role, text_of(message.content), message.name)


def text_of(content: str | list[TextPart]) -> str:
    """Text parts are lines, as in vLLM and llama-server."""
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _merge_leading_system(messages: Iterator[ChatMessage]) -> Iterator[ChatMessage]:
    # Many templates take one system message and refuse or forget the others.
    first = next(messages)
    for message in messages:
        if not (first.role == message.role == "system" and first.name == message.name):
            yield first
            yield message
            break
        first = ChatMessage("system", f"{first.content}\n\n{message.content}", first.name)
    else:
        yield first
        return
    yield from messages
