"""What one counted thing is counted in: a row of numbers, one for each part of time, shared by all edges."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

_RECENT_S = 5.0

Clock = Callable[[], float]


class Row(Protocol):
    """Each number starts at 0, and is forgotten some time after its part of time."""

    async def add(self, changes: Mapping[int, int]) -> dict[int, int]:
        """Add to several numbers, each atomically; their totals right after. Raises BrokerUnavailable."""

    async def look(self, numbers: Collection[int]) -> dict[int, int]:
        """Totals that hold all that was added before the call. Raises BrokerUnavailable."""


class Seen:
    """What was last known to be used."""

    __slots__ = ("_at", "_used")

    def __init__(self) -> None:
        self._at = -math.inf
        self._used = 0

    def note(self, used: int, now: float) -> None:
        self._used, self._at = used, now

    def has_room(self, amount: int, limit: int, now: float) -> bool:
        """Whether there most probably is room: it was less than half used, a moment ago."""
        return now - self._at < _RECENT_S and 2 * (self._used + amount) <= limit


class Full(Exception):
    """There is no room. `wait_s` until there will be, if nothing else changes; None when nobody can say."""

    def __init__(self, wait_s: float | None, used: int, reset_s: float = 0.0) -> None:
        super().__init__("full")
        self.wait_s = wait_s
        self.used = used
        self.reset_s = reset_s
