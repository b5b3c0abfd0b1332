"""One streamed completion as the load generator sees it: when its content came, and what its usage says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from ops.bench.errors import RequestFailed
from ops.bench.events import EventParser


class Sample(NamedTuple):
    """One answer. Times are of `time.perf_counter`, in seconds; tokens are those of the server's `usage`."""

    sent_at: float
    first_content_at: float
    last_content_at: float
    ended_at: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    # When content came, each time; pieces of one arrival count once.
    content_at: tuple[float, ...] = ()

    @property
    def ttft_s(self) -> float:
        """From the request to the first content."""
        return self.first_content_at - self.sent_at

    @property
    def tpot_s(self) -> float | None:
        """Time per token after the first one; None for an answer of one token."""
        if self.completion_tokens < 2:
            return None
        return (self.last_content_at - self.first_content_at) / (self.completion_tokens - 1)


class Answer:
    """Collects one answer. Parsed at once and by the load generator itself, since `usage` and content must be told
    apart."""

    def __init__(self, sent_at: float, on_content: Callable[[], None] | None = None) -> None:
        self._sent_at = sent_at
        self._on_content = on_content
        self._events = EventParser()
        self._content_at: list[float] = []
        self._usage: dict[str, Any] = {}
        self._is_done = False

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes of the body that arrived at `now`. Raises RequestFailed for an error in the stream."""
        for payload in self._events.feed(data):
            if payload == b"[DONE]":
                self._is_done = True
            else:
                self._take(payload, now)

    def finish(self, now: float) -> Sample:
        """The sample, once the body is complete. Raises RequestFailed when it was cut or carries no usage."""
        if not self._is_done:
            raise RequestFailed("the stream ended without [DONE]")
        if not self._content_at:
            raise RequestFailed("the stream carried no content")
        prompt_tokens, completion_tokens = (self._usage.get(f"{kind}_tokens") for kind in ("prompt", "completion"))
        if not isinstance(prompt_tokens, int) or not isinstance(completion_tokens, int):
            raise RequestFailed("the stream carried no usage")
        details = self._usage.get("prompt_tokens_details") or {}
        return Sample(
            self._sent_at,
            self._content_at[0],
            self._content_at[-1],
            now,
            prompt_tokens,
            completion_tokens,
            cached_tokens=details.get("cached_tokens") or 0,
            content_at=tuple(self._content_at),
        )

    def _take(self, payload: bytes, now: float) -> None:
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            raise RequestFailed(f"the stream carried something that is not JSON: {payload[:80]!r}") from None
        if "error" in chunk:
            raise RequestFailed(f"error in the stream: {error_text(chunk)}")
        if usage := chunk.get("usage"):
            self._usage = usage
        for choice in chunk.get("choices") or ():
            if choice.get("text") or (choice.get("delta") or {}).get("content"):
                if not self._content_at or self._content_at[-1] != now:
                    self._content_at.append(now)
                if self._on_content is not None:
                    self._on_content()


def error_text(body: Any) -> str:
    """The message of an OpenAI error object, or as much of anything else as fits a line."""
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return str(message or body)[:200]
