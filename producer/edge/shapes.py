"""How answers look: whole bodies, and byte templates for streamed chunks.

Only the text of a chunk varies from token to token, so everything around it is rendered once for each choice.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from schemas.events import Usage
from schemas.requests import Endpoint

DONE = b"data: [DONE]\n\n"
_TEXT_MARK = "\x01text\x01"
_REASON_MARK = "\x01reason\x01"


@dataclass(frozen=True, slots=True)
class Header:
    """What every body and chunk of one answer repeats. `fingerprint` None: no worker has started it yet."""

    endpoint: Endpoint
    request_id: str
    created: int
    model: str
    service_tier: str
    fingerprint: str | None

    @property
    def body_id(self) -> str:
        return f"{_PREFIXES[self.endpoint]}-{self.request_id}"


class Answer(NamedTuple):
    """One finished choice."""

    text: str
    finish_reason: str
    usage: Usage


_PREFIXES = {Endpoint.CHAT: "chatcmpl", Endpoint.COMPLETIONS: "cmpl"}
_OBJECTS = {Endpoint.CHAT: "chat.completion", Endpoint.COMPLETIONS: "text_completion"}
_CHUNK_OBJECTS = {Endpoint.CHAT: "chat.completion.chunk", Endpoint.COMPLETIONS: "text_completion"}


def render_body(header: Header, answers: list[Answer]) -> bytes:
    """A whole answer, not streamed."""
    choice = _chat_choice if header.endpoint is Endpoint.CHAT else _text_choice
    return orjson.dumps(
        {
            **_envelope(header, _OBJECTS[header.endpoint]),
            "choices": [choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage_object(add_usage(answer.usage for answer in answers)),
        }
    )


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def add_usage(usages: Any) -> Usage:
    """Sum over the choices of an answer."""
    return Usage(*(sum(counts) for counts in zip(*usages, strict=True)))


class ChunkTemplates:
    """Renders the `data:` events of one stream. Event ids are given as bytes; empty means none."""

    def __init__(self, header: Header, num_choices: int, include_usage: bool) -> None:
        self._envelope = _envelope(header, _CHUNK_OBJECTS[header.endpoint])
        self._is_chat = header.endpoint is Endpoint.CHAT
        self._nulls = {"usage": None} if include_usage else {}
        self._choices = [self._render_choice(index) for index in range(num_choices)]

    def role(self) -> bytes:
        """The first chunks of a chat stream, one for each choice: the role alone."""
        if not self._is_chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        return b"".join(
            self._event({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})
            for index in range(len(self._choices))
        )

    def text(self, choice: int, event_id: bytes, text: str) -> bytes:
        before, after, _, _ = self._choices[choice]
        if event_id:
            return b"id: %b\n%b%b%b" % (event_id, before, orjson.dumps(text), after)
        return b"%b%b%b" % (before, orjson.dumps(text), after)

    def finish(self, choice: int, event_id: bytes, reason: str) -> bytes:
        _, _, before, after = self._choices[choice]
        chunk = b"%b%b%b" % (before, orjson.dumps(reason), after)
        return b"id: %b\n%b" % (event_id, chunk) if event_id else chunk

    def usage(self, usage: Usage) -> bytes:
        return b"data: %b\n\n" % orjson.dumps(self._envelope | {"choices": [], "usage": usage_object(usage)})

    def _render_choice(self, index: int) -> tuple[bytes, bytes, bytes, bytes]:
        insides: dict[str, Any] = {"delta": {"content": _TEXT_MARK}} if self._is_chat else {"text": _TEXT_MARK}
        text = self._event({"index": index, **insides, "logprobs": None, "finish_reason": None})
        insides = {"delta": {}} if self._is_chat else {"text": ""}
        finish = self._event({"index": index, **insides, "logprobs": None, "finish_reason": _REASON_MARK})
        return (*_split(text, _TEXT_MARK), *_split(finish, _REASON_MARK))

    def _event(self, choice: dict[str, Any]) -> bytes:
        return b"data: %b\n\n" % orjson.dumps(self._envelope | {"choices": [choice]} | self._nulls)


def _envelope(header: Header, kind: str) -> dict[str, Any]:
    return {
        "id": header.body_id,
        "object": kind,
        "created": header.created,
        "model": header.model,
        "service_tier": header.service_tier,
        "system_fingerprint": header.fingerprint,
    }


def _split(chunk: bytes, mark: str) -> tuple[bytes, bytes]:
    before, _, after = chunk.partition(orjson.dumps(mark))
    return before, after


def _chat_choice(index: int, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}


def _text_choice(index: int, answer: Answer) -> dict[str, Any]:
    return {"index": index, "text": answer.text, "logprobs": None, "finish_reason": answer.finish_reason}
