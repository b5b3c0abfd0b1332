"""A conversation in a file: JSON with the messages as the API takes them, for its user's eyes."""

import json
import os
from pathlib import Path
from typing import Any

from ops.errors import Failure

_OBJECT = "inferctl.chat"
_ROLES = ("system", "developer", "user", "assistant")


def save(path: Path, model: str | None, messages: list[dict[str, str]]) -> None:
    """Write it, mode 0600, over an earlier one. Raises Failure, also for a file that is something else."""
    if path.exists() and (not path.is_file() or not _is_ours(path)):
        raise Failure(f"{path} is there and is no saved conversation")
    document = {"object": _OBJECT, "model": model, "messages": messages}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False, indent=1)
            file.write("\n")
        temporary.replace(path)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None


def load(path: Path) -> tuple[str | None, list[dict[str, str]]]:
    """The model and the messages; a bare list of messages will do. Raises Failure."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Failure(f"{path} is no JSON") from None
    model = document.get("model") if isinstance(document, dict) else None
    messages = document.get("messages") if isinstance(document, dict) else document
    if not isinstance(messages, list) or not all(map(_is_message, messages)):
        raise Failure(f"{path} holds no messages with role and content")
    if model is not None and not isinstance(model, str):
        raise Failure(f"{path}: model is no text")
    return model, [{"role": message["role"], "content": message["content"]} for message in messages]


def _is_ours(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("object") == _OBJECT


def _is_message(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("role") in _ROLES and isinstance(entry.get("content"), str)
