"""What a record says of a prompt or an answer, as `audit.content` has it."""

from collections.abc import Sequence

import orjson

from producer.audit.keys import AuditKeys
from producer.config import AuditContent
from schemas.requests import ChatPrompt, Prompt, TextPrompt


class Texts:
    def __init__(self, keys: AuditKeys, content: AuditContent) -> None:
        self._keys = keys
        self._content = content

    def details(self, name: str, texts: Sequence[str], *, may_be_kept: bool) -> dict[str, str | int]:
        """The facts on some texts, under `name`. What may be kept nowhere is hashed even where texts are wanted."""
        text = texts[0] if len(texts) == 1 else orjson.dumps(list(texts)).decode()
        match self._content:
            case AuditContent.NONE:
                return {}
            case AuditContent.FULL if may_be_kept:
                return {name: text, f"{name}_characters": len(text)}
            case _:
                return {f"{name}_hash": self._keys.hide(text)}


def prompt_text(prompt: Prompt) -> str:
    """A prompt as one text: itself, its token ids as JSON, or its messages as JSON pairs of role and content."""
    match prompt:
        case TextPrompt(text=text):
            return text
        case ChatPrompt(messages=messages):
            return orjson.dumps([[each.role, each.content] for each in messages]).decode()
        case _:
            return orjson.dumps(list(prompt.token_ids)).decode()
