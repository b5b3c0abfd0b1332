"""One call's part in each thing that is counted: taken before it is queued, given back or settled at its end."""

from enum import StrEnum
from typing import Protocol

from producer.limits.day import DayBudget
from producer.limits.holds import Holds
from producer.limits.rolling import RollingWindow, Taken
from producer.limits.standing import Standing


class Kind(StrEnum):
    """What is counted; also a word of the counter's name."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    RUNNING = "running"
    DAY = "tokens-of-day"


class Entry(Protocol):
    """`take` comes first, and after it either `undo` or `end`, once. All raise BrokerUnavailable."""

    def has_room(self, limit: int) -> bool:
        """Whether `take` will most probably not raise Full."""

    async def take(self, limit: int) -> Standing:
        """Raises Full, and then nothing is taken."""

    async def undo(self) -> None:
        """The call was not to be."""

    async def end(self, num_tokens: int) -> None:
        """The call is over and came to so many tokens."""


class RequestsEntry:
    def __init__(self, window: RollingWindow, amount: int) -> None:
        self._window = window
        self._amount = amount
        self._taken: Taken | None = None

    def has_room(self, limit: int) -> bool:
        return self._window.has_room(self._amount, limit)

    async def take(self, limit: int) -> Standing:
        self._taken = await self._window.take(self._amount, limit)
        return Standing(limit, self._taken.used, self._taken.reset_s)

    async def undo(self) -> None:
        assert self._taken is not None
        await self._window.settle(self._taken, 0)

    async def end(self, num_tokens: int) -> None:
        """A request is one however it ends."""


class TokensEntry(RequestsEntry):
    async def end(self, num_tokens: int) -> None:
        assert self._taken is not None
        await self._window.settle(self._taken, num_tokens)


class RunningEntry:
    def __init__(self, holds: Holds, amount: int) -> None:
        self._holds = holds
        self._amount = amount

    def has_room(self, limit: int) -> bool:
        return self._holds.has_room(self._amount, limit)

    async def take(self, limit: int) -> Standing:
        return Standing(limit, await self._holds.take(self._amount, limit), 0.0)

    async def undo(self) -> None:
        await self._holds.release(self._amount)

    async def end(self, num_tokens: int) -> None:
        await self._holds.release(self._amount)


class DayEntry:
    def __init__(self, budget: DayBudget, amount: int) -> None:
        self._budget = budget
        self._amount = amount
        self._day = 0

    def has_room(self, limit: int) -> bool:
        return self._budget.has_room(self._amount, limit)

    async def take(self, limit: int) -> Standing:
        self._day = await self._budget.take(self._amount, limit)
        return Standing(limit, 0, 0.0)

    async def undo(self) -> None:
        await self._budget.settle(self._day, self._amount, 0)

    async def end(self, num_tokens: int) -> None:
        await self._budget.settle(self._day, self._amount, num_tokens)
