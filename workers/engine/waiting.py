"""Sequences that have no KV yet."""

from collections import deque
from collections.abc import Iterator

from schemas.requests import PriorityClass
from workers.engine.sequence import Sequence


class WaitingQueue:
    """Strict classes; inside a class by arrival."""

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[PriorityClass, deque[Sequence]] = {priority: deque() for priority in PriorityClass}

    def __len__(self) -> int:
        return sum(map(len, self._classes.values()))

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._classes.values():
            yield from queue

    def push(self, sequence: Sequence) -> None:
        self._classes[sequence.priority].append(sequence)

    def push_back(self, sequence: Sequence) -> None:
        """Return one that ran already: it arrived before all that wait in its class."""
        self._classes[sequence.priority].appendleft(sequence)

    def head(self) -> Sequence | None:
        """Who is next, or None."""
        for queue in self._classes.values():
            if queue:
                return queue[0]
        return None

    def pop(self) -> Sequence:
        """Take the head out. Raises IndexError when nobody waits."""
        for queue in self._classes.values():
            if queue:
                return queue.popleft()
        raise IndexError("nobody waits")

    def remove(self, sequence: Sequence) -> None:
        self._classes[sequence.priority].remove(sequence)
