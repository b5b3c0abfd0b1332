"""KV of sequences that gave way, in host memory until they come back."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from workers.engine.sequence import Sequence
from workers.runners.base import Handle, ModelRunner, RunnerError

logger = logging.getLogger(__name__)

# Each time that computing again looks cheaper the remembered cost of a copy fades: one slow copy does not count for
# ever.
_FADE = 0.9
_DECAY = 0.8


class _Parked(NamedTuple):
    data: bytes
    num_tokens: int


class _Rate:
    """Seconds a token takes, over the last few times."""

    __slots__ = ("_seconds", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    @property
    def seconds_per_token(self) -> float:
        return self._seconds / self._tokens if self._tokens else 0.0

    def observe(self, num_tokens: int, duration_s: float) -> None:
        self._tokens = self._tokens * _DECAY + num_tokens
        self._seconds = self._seconds * _DECAY + duration_s

    def fade(self) -> None:
        self._seconds *= _FADE


class Parking:
    """Owns the bytes, at most `max_bytes` of them. Used by the engine thread alone.

    The bytes stay in this process, so they need no checksum.
    """

    def __init__(
        self, runner: ModelRunner, can_export: bool, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runner = runner
        self._can_export = can_export and max_bytes > 0
        self._max_bytes = max_bytes
        self._clock = clock
        self._parked: dict[Sequence, _Parked] = {}
        self._saving = _Rate()
        self._restoring = _Rate()
        self._bytes_per_token = 0.0
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, sequence: Sequence, prefill_s: float | None) -> None:
        """Keep a sequence's KV if that is cheaper than to compute it again at `prefill_s` a token (None: not measured).

        Its handle still belongs to the caller.
        """
        num_tokens = sequence.num_computed
        if sequence.handle is None or not num_tokens or not self._is_worth_it(num_tokens, prefill_s):
            return
        started = self._clock()
        try:
            data = self._runner.export(sequence.handle)
        except RunnerError as error:
            logger.warning("KV cannot be parked, it is computed again: %s", error)
            self._can_export = False
            return
        self._saving.observe(num_tokens, self._clock() - started)
        self._bytes_per_token = len(data) / num_tokens
        if self.num_bytes + len(data) <= self._max_bytes:
            self._parked[sequence] = _Parked(data, num_tokens)
            self.num_bytes += len(data)

    def num_tokens(self, sequence: Sequence) -> int:
        """How much of a sequence is parked."""
        parked = self._parked.get(sequence)
        return 0 if parked is None else parked.num_tokens

    def restore(self, sequence: Sequence) -> Handle | None:
        """A handle with the parked KV, which is gone from here then. None when the runner does not take it."""
        parked = self._take(sequence)
        if parked is None:
            return None
        started = self._clock()
        handle = self._runner.import_(parked.data, parked.num_tokens)
        if handle is not None:
            self._restoring.observe(parked.num_tokens, self._clock() - started)
        return handle

    def forget(self, sequence: Sequence) -> None:
        """Drop the KV of a sequence that does not need it. Does nothing when there is none."""
        self._take(sequence)

    def faults(self, waiting: Iterable[Sequence]) -> list[str]:
        """What does not balance: nothing is parked but for those that wait."""
        num_bytes = sum(len(parked.data) for parked in self._parked.values())
        strangers = self._parked.keys() - set(waiting)
        faults = [f"{sequence.request_id} is parked and does not wait" for sequence in strangers]
        if num_bytes != self.num_bytes:
            faults.append(f"{num_bytes} bytes are parked and {self.num_bytes} were counted")
        return faults

    def _take(self, sequence: Sequence) -> _Parked | None:
        parked = self._parked.pop(sequence, None)
        if parked is not None:
            self.num_bytes -= len(parked.data)
        return parked

    def _is_worth_it(self, num_tokens: int, prefill_s: float | None) -> bool:
        if not self._can_export or self.num_bytes + num_tokens * self._bytes_per_token > self._max_bytes:
            return False
        if prefill_s is None or self._saving.seconds_per_token + self._restoring.seconds_per_token < prefill_s:
            return True
        self._saving.fade()
        self._restoring.fade()
        return False
