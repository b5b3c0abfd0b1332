"""Answers that are in no journal, kept by the edge that took them for a client who comes back."""

import time

from producer.edge.calls import Call, LiveCalls
from schemas.events import Finished

# What a call takes besides its text, and what a token of it does, roughly.
_CALL_BYTES = 16 * 1024
_TOKEN_BYTES = 128


class KeptAnswers:
    """Bounded in time and bytes; the oldest go first. A reader keeps hold of its own answer whatever goes."""

    def __init__(self, calls: LiveCalls, window_s: float, max_bytes: int) -> None:
        self._calls = calls
        self._window_s = window_s
        self._max_bytes = max_bytes
        self._kept: dict[Call, int] = {}

    def keep(self, call: Call) -> bool:
        """Whether an ended call stays. Asked when it ends, and again from time to time."""
        now = time.monotonic()
        if not _can_be_wanted(call):
            call.kept_until = 0.0
        elif call.kept_until is None:
            call.kept_until = now + self._window_s
            self._kept[call] = _size(call)
            self._calls.set_aside(call)
            self._make_room()
        if call.kept_until > now:
            return True
        self._kept.pop(call, None)
        return False

    def _make_room(self) -> None:
        num_bytes = sum(self._kept.values())
        while num_bytes > self._max_bytes:
            oldest = next(iter(self._kept))
            oldest.kept_until = 0.0
            num_bytes -= self._kept.pop(oldest)


def _can_be_wanted(call: Call) -> bool:
    """Whether this is the only place of an answer that was not delivered, or that the client says it may ask for."""
    if call.is_journaled or call.is_followed or call.failure is not None:
        return False
    if call.delivered and call.idempotency_key is None:
        return False
    return all(isinstance(part.view.fold.terminal, Finished) for part in call.parts)


def _size(call: Call) -> int:
    folds = [part.view.fold for part in call.parts]
    return _CALL_BYTES + sum(_TOKEN_BYTES * fold.length + sum(map(len, fold.pieces)) for fold in folds)
