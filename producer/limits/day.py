"""At most N in a day of UTC, over any number of edges."""

from producer.limits.store import Clock, Full, Row, Seen

_DAY_S = 86_400
_FULL_FOR_S = 0.05


class DayBudget:
    """One counted thing, as one edge sees it. `clock` is the broker's, in seconds; used from one loop."""

    def __init__(self, row: Row, clock: Clock) -> None:
        self._row = row
        self._clock = clock
        self._full: tuple[float, int, Full] | None = None
        self._seen = Seen()

    def has_room(self, amount: int, limit: int) -> bool:
        """Whether `take` will most probably not raise Full."""
        return self._seen.has_room(amount, limit, self._clock())

    async def take(self, amount: int, limit: int) -> int:
        """The day that it was taken from. Raises Full, and then nothing is taken; BrokerUnavailable."""
        now = self._clock()
        if self._full is not None and now < self._full[0] and amount >= self._full[1]:
            raise self._full[2]
        day = int(now // _DAY_S)
        total = (await self._row.add({day: amount}))[day]
        self._seen.note(total, now)
        if total <= limit:
            return day
        await self._row.add({day: -amount})
        midnight_s = (day + 1) * _DAY_S - now
        full = Full(midnight_s, total - amount, midnight_s)
        self._full = (now + min(_FULL_FOR_S, midnight_s), amount, full)
        raise full

    async def settle(self, day: int, amount: int, used: int) -> None:
        """The `amount` that was taken came to `used`. Raises BrokerUnavailable."""
        if used != amount and day == int(self._clock() // _DAY_S):
            self._full = None
            await self._row.add({day: used - amount})

    async def use(self) -> int:
        """What is used today. Raises BrokerUnavailable."""
        day = int(self._clock() // _DAY_S)
        return max((await self._row.look([day])).get(day, 0), 0)
