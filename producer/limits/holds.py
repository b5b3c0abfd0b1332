"""At most N at a time, over any number of edges, and what a dead edge held comes back.

Time is cut into leases, each a counter in the broker. What an edge holds stands in two of them: that of this moment
and the next one. When a lease begins, each edge carries over what it still holds into the one after it. A dead edge
carries nothing over: what it held is gone after two leases at most.

      lease       7      8      9
      held      |  5  |  5  |
                   ^ now: to hold one more, add 1 to 7 and to 8; both totals have to be within the limit

Both counters hold all that is held by edges that live, so whichever two edges are in, they have one in common, and of
two that ask at the same instant one comes second there. An edge that stands still for a whole lease loses what it held
until it goes on.
"""

import math
from collections.abc import Mapping

from producer.limits.store import Clock, Full, Row, Seen

_FULL_FOR_S = 0.05


class Holds:
    """One counted thing, as one edge sees it. `clock` is the broker's, in seconds; used from one loop."""

    def __init__(self, row: Row, lease_s: float, clock: Clock) -> None:
        self._row = row
        self._lease_s = lease_s
        self._clock = clock
        self._told: dict[int, int] = {}
        self._full: tuple[float, int, Full] | None = None
        self._seen = Seen()
        self.held = 0

    def has_room(self, amount: int, limit: int) -> bool:
        """Whether `take` will most probably not raise Full."""
        return self._seen.has_room(amount, limit, self._clock())

    async def take(self, amount: int, limit: int) -> int:
        """Hold `amount` until `release`; what all edges hold now. Raises Full; BrokerUnavailable."""
        self._raise_if_full(amount)
        self.held += amount
        try:
            total = await self._tell_in_time()
        except BaseException:
            self.held -= amount
            raise
        self._seen.note(total, self._clock())
        if total <= limit:
            return total
        await self.release(amount)
        full = Full(None, max(total - amount, 0))
        self._full = (self._clock() + _FULL_FOR_S, amount, full)
        raise full

    async def release(self, amount: int) -> None:
        """Raises BrokerUnavailable; it is released all the same, though perhaps only with the lease."""
        self.held -= amount
        self._full = None
        await self._tell(self._lease())

    async def renew(self) -> None:
        """Carry over what is held. Several times a lease. Raises BrokerUnavailable."""
        lease = self._lease()
        await self._tell(lease)
        for old in [each for each in self._told if each < lease]:
            del self._told[old]

    async def use(self) -> int:
        """What all edges hold now. Raises BrokerUnavailable."""
        lease = self._lease()
        return max((await self._row.look([lease])).get(lease, 0), 0)

    def count_again(self) -> None:
        """The broker has lost its numbers: `renew` tells them anew."""
        self._told.clear()

    @property
    def is_idle(self) -> bool:
        return self.held == 0 and not any(self._told.values())

    def _lease(self) -> int:
        return math.floor(self._clock() / self._lease_s)

    def _raise_if_full(self, amount: int) -> None:
        if self._full is not None and self._clock() < self._full[0] and amount >= self._full[1]:
            raise Full(None, self._full[2].used)

    async def _tell_in_time(self) -> int:
        while True:
            lease = self._lease()
            totals = await self._tell(lease)
            if self._lease() <= lease + 1:
                return max(totals.values(), default=0)

    async def _tell(self, lease: int) -> Mapping[int, int]:
        """Bring the counters of this lease and the next to what is held here."""
        changes = {each: self.held - self._told.get(each, 0) for each in (lease, lease + 1)}
        changes = {each: change for each, change in changes.items() if change}
        if not changes:
            return {}
        for each, change in changes.items():
            self._told[each] = self._told.get(each, 0) + change
        try:
            return await self._row.add(changes)
        except BaseException:
            # Unknown outcomes: better too much there than too little, until the lease is over.
            for each, change in changes.items():
                if change > 0:
                    self._told[each] -= change
            raise
