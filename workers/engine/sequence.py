"""The engine's mutable state for a request."""

from dataclasses import dataclass, field
from enum import StrEnum

from schemas.events import FinishReason, Usage
from schemas.requests import PriorityClass
from workers.engine.sampler import Sampler
from workers.engine.stopping import Piece, Stopping
from workers.runners.base import Handle


class SequenceState(StrEnum):
    """waiting -> running -> ended; back from running to waiting when it had to give way."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and what was generated so far. `token_ids` holds both; the first `num_computed` of them are in KV.

    There is no prefill or decode phase: a sequence that has caught up with its known tokens gets the next one. A
    running one without a handle waits for another to compute what they begin with. `num_cached`: how much of the prompt
    was there when it first began; None before.
    """

    request_id: str
    priority: PriorityClass
    arrival: int
    token_ids: list[int]
    num_prompt: int
    max_tokens: int
    sampler: Sampler
    stopping: Stopping
    tenant: str = ""
    is_prefill_only: bool = False
    state: SequenceState = SequenceState.WAITING
    handle: Handle | None = None
    num_computed: int = 0
    num_cached: int | None = None
    reason: FinishReason | None = None
    # Times it gave way to a higher class; whether it waits to come back; its output when it last began to run; when it
    # began to wait for a place or, with a place, for its prompt to be computed (`time.monotonic()`).
    num_preemptions: int = 0
    is_displaced: bool = False
    slice_start: int = 0
    waits_since: float = 0.0
    order: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.order = (self.priority.rank, self.arrival)

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    @property
    def num_output(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def num_reserved(self) -> int:
        """KV tokens set aside for the sequence while it runs: all it can ever need."""
        return self.num_prompt + self.max_tokens

    @property
    def num_in_slice(self) -> int:
        """Tokens generated since it last began to run."""
        return self.num_output - self.slice_start

    @property
    def usage(self) -> Usage:
        return Usage(self.num_prompt, self.num_output, self.num_cached or 0)

    def append(self, token_id: int) -> Piece:
        """Take the next output token, drawn or replayed; the piece says whether it was the last."""
        self.token_ids.append(token_id)
        self.sampler.observe(token_id)
        piece = self.stopping.push(token_id)
        self.reason = piece.reason
        return piece
