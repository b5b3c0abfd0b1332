"""What is measured, as decided by the command line."""

from dataclasses import dataclass
from pathlib import Path

# Before every turn, one request for each sequence: pages of the weights and thread pools come up to temperature.
WARM_UP_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Load:
    """One closed loop: `concurrency` clients, `num_requests` answers in all, `max_tokens` each."""

    concurrency: int
    num_requests: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """`model` is a GGUF file. `context` is tokens per sequence; every arm gets the same."""

    model: Path | None
    arms: tuple[str, ...]
    concurrency: tuple[int, ...]
    rounds: int
    requests: int
    max_tokens: int
    threads: int
    context: int

    @property
    def sequences(self) -> int:
        """As many as the widest load has clients, so that no arm queues."""
        return max(self.concurrency)

    @property
    def loads(self) -> tuple[Load, ...]:
        """At least `requests` answers and two for each client, so that the last ones end at about the same time."""
        return tuple(
            Load(count, count * max(2, -(-self.requests // count)), self.max_tokens) for count in self.concurrency
        )

    @property
    def warm_up(self) -> Load:
        return Load(self.sequences, self.sequences, min(WARM_UP_TOKENS, self.max_tokens))
