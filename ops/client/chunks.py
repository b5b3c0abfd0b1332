"""Reads the answers of the OpenAI API."""

from collections.abc import Iterator, Mapping
from typing import Any


def pieces(chunk: Mapping[str, Any]) -> Iterator[str]:
    """The new text of a streamed chunk."""
    for choice in chunk.get("choices", ()):
        yield text_of(choice)


def text_of(choice: Mapping[str, Any]) -> str:
    """The text of a choice, of a completion or a chat, whole or streamed."""
    if "text" in choice:
        return choice["text"] or ""
    part: Mapping[str, Any] = choice.get("delta") or choice.get("message") or {}
    return part.get("content") or ""
