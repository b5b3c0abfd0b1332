"""Numbers an engine gives away."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

# Called on the engine thread after every forward pass with: sequences in the batch, prompt tokens computed, tokens
# drawn, seconds the pass took. Must be quick and must not raise.
StepObserver = Callable[[int, int, int, float], None]


class EngineStats(NamedTuple):
    """A snapshot. Totals only grow; `last_step_at` is `time.monotonic()` at the end of the last step."""

    steps: int = 0
    batch_size: int = 0
    running: int = 0
    waiting: int = 0
    prompt_tokens_total: int = 0
    completion_tokens_total: int = 0
    preemptions_total: int = 0
    yields_total: int = 0
    resumes_total: int = 0
    parked: int = 0
    parked_bytes: int = 0
    kv_used_tokens: int = 0
    kv_reserved_tokens: int = 0
    kv_cached_tokens: int = 0
    kv_cached_entries: int = 0
    kv_budget_tokens: int = 0
    kv_page_tokens: int = 1
    prefix_hits_total: int = 0
    prefix_misses_total: int = 0
    prefix_matched_tokens_total: int = 0
    prefix_evictions_total: int = 0
    last_step_at: float | None = None


@dataclass(slots=True)
class StepCounters:
    """What grows with every step. Written by the engine thread, read by any."""

    steps: int = 0
    batch_size: int = 0
    prompt_tokens_total: int = 0
    completion_tokens_total: int = 0
    last_step_at: float | None = None

    def note(self, batch_size: int, prompt_tokens: int, completion_tokens: int, now: float) -> None:
        self.steps += 1
        self.batch_size = batch_size
        self.prompt_tokens_total += prompt_tokens
        self.completion_tokens_total += completion_tokens
        self.last_step_at = now
