"""How far estimates of prompts were off, so that the next reservation is not.

An edge without a tokenizer counts bytes. What a worker has counted in the end tells the rest, for each model its
tokenizer and the language people write in, and for chats its template, which weighs most where messages are short.
"""

from dataclasses import dataclass

from schemas.requests import Endpoint

# What lies so many prompts back counts a third.
_MEMORY = 64
_MOST = 8.0


@dataclass(slots=True)
class _Sums:
    estimated: float = 0.0
    counted: float = 0.0


class PromptSizes:
    """Held for models that are known, so as many as these."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, Endpoint], _Sums] = {}

    def note(self, model: str, endpoint: Endpoint, estimated: int, counted: int) -> None:
        """A prompt that was estimated has been counted."""
        sums = self._sums.setdefault((model, endpoint), _Sums())
        fading = 1 - 1 / _MEMORY
        sums.estimated = sums.estimated * fading + estimated
        sums.counted = sums.counted * fading + counted

    def correct(self, model: str, endpoint: Endpoint, estimated: int) -> int:
        """What to reserve for a prompt: never less than the estimate."""
        sums = self._sums.get((model, endpoint))
        if sums is None or sums.counted <= sums.estimated:
            return estimated
        return round(estimated * min(sums.counted / sums.estimated, _MOST) + 0.5)
