"""A row of numbers as counters in the broker."""

import asyncio
from collections.abc import Callable, Collection, Mapping

from broker.counters import Counters

# So many of the newest are read through the stream's leader, which knows all; older ones from any replica at once.
_NEWEST = 2


class CounterRow:
    """`subject_of` names the counter of each number; all are in `stream`."""

    def __init__(self, counters: Counters, stream: str, subject_of: Callable[[int], str]) -> None:
        self._counters = counters
        self._stream = stream
        self._subject_of = subject_of

    async def add(self, changes: Mapping[int, int]) -> dict[int, int]:
        subjects = {self._subject_of(number): amount for number, amount in changes.items()}
        totals = await self._counters.add(subjects)
        return dict(zip(changes, totals.values(), strict=True))

    async def look(self, numbers: Collection[int]) -> dict[int, int]:
        ordered = sorted(numbers)
        newest, older = ordered[-_NEWEST:], ordered[:-_NEWEST]
        if not older:
            return await self.add(dict.fromkeys(newest, 0))
        subjects = {self._subject_of(number): number for number in older}
        totals, seen = await asyncio.gather(
            self._counters.totals(self._stream, subjects), self.add(dict.fromkeys(newest, 0))
        )
        return {**seen, **{subjects[subject]: total for subject, total in totals.items()}}
