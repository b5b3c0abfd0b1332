"""What is known of a model at one moment. All of it is the broker's word, so it is the same at every edge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas.requests import PriorityClass


class ClassFacts(NamedTuple):
    """One class of the queue. `num_delivered` counts deliveries since the queue was made, repeated ones too."""

    waiting: int = 0
    running: int = 0
    num_delivered: int = 0
    oldest_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """`at` is monotonic seconds. `refused`: calls of the last minute that found no worker, at any edge. `workers` take
    work now, and run `slots` sequences together."""

    at: float
    classes: Mapping[PriorityClass, ClassFacts]
    waiting_tokens: int = 0
    refused: int = 0
    workers: int = 0
    slots: int = 0

    @property
    def running(self) -> int:
        return sum(each.running for each in self.classes.values())

    @property
    def waiting_batch(self) -> int:
        return self.of(PriorityClass.BATCH).waiting

    @property
    def waiting(self) -> int:
        """Without those of class batch, which nobody waits for."""
        return sum(each.waiting for each in self.classes.values()) - self.waiting_batch

    @property
    def oldest_age_s(self) -> float:
        """Longest wait, again without batch."""
        return max((each.oldest_age_s for name, each in self.classes.items() if name != PriorityClass.BATCH), default=0)

    @property
    def has_demand(self) -> bool:
        return bool(self.waiting or self.waiting_batch or self.running or self.refused)

    def of(self, priority: PriorityClass) -> ClassFacts:
        return self.classes.get(priority, ClassFacts())
