"""What one counted thing is counted in: a row of numbers, one for each part of time, shared by all edges."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

Clock = Callable[[], float]


class Row(Protocol):
    """Each number starts at 0, and is forgotten some time after its part of time."""

    async def add(self, changes: Mapping[int, int]) -> dict[int, int]:
        """Add to several numbers, each atomically; their totals right after. Raises BrokerUnavailable."""

    async def look(self, numbers: Collection[int]) -> dict[int, int]:
        """Totals that hold all that was added before the call. Raises BrokerUnavailable."""


class Full(Exception):
    """There is no room. `wait_s` until there will be, if nothing else changes; None when nobody can say."""

    def __init__(self, wait_s: float | None, used: int, reset_s: float = 0.0) -> None:
        super().__init__("full")
        self.wait_s = wait_s
        self.used = used
        self.reset_s = reset_s
