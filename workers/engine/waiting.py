"""Sequences that do not run: new ones, and those that gave way."""

from collections import deque
from collections.abc import Callable, Iterator

from schemas.requests import PriorityClass
from workers.engine.ageing import aged_rank
from workers.engine.sequence import Sequence


class WaitingQueue:
    """Strict classes but for ageing; inside a class by arrival, those that have yielded behind the others."""

    __slots__ = ("_classes", "_clock")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._classes: dict[PriorityClass, deque[Sequence]] = {priority: deque() for priority in PriorityClass}
        self._clock = clock

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._classes.values():
            yield from queue

    def push(self, sequence: Sequence) -> None:
        sequence.waits_since = self._clock()
        self._classes[sequence.priority].append(sequence)

    def push_back(self, sequence: Sequence) -> None:
        """Return one that ran already, into its place by arrival: near the front."""
        sequence.waits_since = self._clock()
        queue = self._classes[sequence.priority]
        place = next((place for place, other in enumerate(queue) if other.order > sequence.order), len(queue))
        queue.insert(place, sequence)

    def head(self) -> Sequence | None:
        """Who is next, or None."""
        heads = [queue[0] for queue in self._classes.values() if queue]
        if len(heads) < 2:
            return heads[0] if heads else None
        now = self._clock()
        return min(heads, key=lambda sequence: (aged_rank(sequence, now), sequence.waits_since))

    def num_before(self, priority: PriorityClass) -> int:
        """How many would run before a newcomer of a class."""
        return sum(len(queue) for other, queue in self._classes.items() if other.rank <= priority.rank)

    def remove(self, sequence: Sequence) -> None:
        self._classes[sequence.priority].remove(sequence)
