"""Which cached entry goes first."""

from collections.abc import Callable, Iterator
from typing import Protocol

from workers.kv.entry import Entry

CanGo = Callable[[Entry], bool]


class EvictionPolicy(Protocol):
    """The cached entries, in the order of the policy."""

    def __len__(self) -> int: ...

    def __contains__(self, entry: Entry) -> bool: ...

    def __iter__(self) -> Iterator[Entry]: ...

    def add(self, entry: Entry) -> None: ...

    def remove(self, entry: Entry) -> None: ...

    def touch(self, entry: Entry) -> None:
        """It was of use."""
        ...

    def choose(self, can_go: CanGo) -> Entry | None:
        """The next to go, among those that can; it stays until it is removed."""
        ...


class Lru:
    """The one that was of no use for longest."""

    def __init__(self) -> None:
        self._entries: dict[Entry, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, entry: Entry) -> None:
        self._entries[entry] = None

    def remove(self, entry: Entry) -> None:
        del self._entries[entry]

    def touch(self, entry: Entry) -> None:
        self._entries[entry] = self._entries.pop(entry)

    def choose(self, can_go: CanGo) -> Entry | None:
        return next(filter(can_go, self._entries), None)


class Clock:
    """The first that the hand meets and that was of no use since it last passed (Corbato, 1968).

    Unlike `Lru`, one use keeps an entry for one round, however long ago: a burst of new entries that nobody asks for
    again drives out each other, and not what is used now and then.
    """

    def __init__(self) -> None:
        self._was_used: dict[Entry, bool] = {}  # in the order in which the hand comes by

    def __len__(self) -> int:
        return len(self._was_used)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._was_used

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._was_used)

    def add(self, entry: Entry) -> None:
        self._was_used[entry] = False

    def remove(self, entry: Entry) -> None:
        del self._was_used[entry]

    def touch(self, entry: Entry) -> None:
        self._was_used[entry] = True

    def choose(self, can_go: CanGo) -> Entry | None:
        if not any(map(can_go, self._was_used)):
            return None
        while True:
            entry = next(iter(self._was_used))
            if can_go(entry) and not self._was_used[entry]:
                return entry
            # The hand moves on: a used one loses its mark, one that cannot go now keeps its own.
            self._was_used[entry] = self._was_used.pop(entry) and not can_go(entry)
