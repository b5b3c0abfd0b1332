"""At most N in any rolling window, over any number of edges, and all N at once if a client likes.

Time is cut into short buckets, each a counter in the broker. To take n, an edge adds n to the bucket of this moment,
and the broker answers with the total: the sum of that and of the older buckets in the window decides, and who is above
the limit gives back. Two that ask at the same instant get different totals, so they cannot both be the last.

      older buckets, closed: read once, then known         now
    |  4  |  0  |  9  |  ...                   |  2  |  +1 -> 3     4 + 0 + 9 + ... + 2 + 3 <= N ?

What makes that exact though clocks differ and messages take time:

* Edges go by the broker's clock (broker_clock), and agree on it within `skew_s`.
* An addition counts in its bucket only if its answer came before the bucket's end and `grace_s`; a later one is taken
  back and done again in the present bucket. So after that time a bucket only shrinks, and its total may be kept.
* A bucket that is not closed yet is read after one's own addition. Of two that add to neighbouring buckets around a
  boundary one comes second, and its reading sees the first.

So whoever is admitted last of any N + 1 within a window sees all the others, and is refused. Around a boundary two may
refuse each other: they try again when the older bucket is closed. A bucket leaves only when
its last moment is a window and `margin_s` old, so that a client may measure the window at its own end: in exchange
a full window frees up to `width_s` + `margin_s` late.

Alternatives, measured on one server (0.12 ms for one addition, p50): two fixed windows weighed take one addition and no
reading, but a burst at the end of one and a steady flow in the next let through 1.5 to 2 times the limit in a rolling
window, or refuse a burst that is allowed; a generic cell rate lets through the burst and then the rate, twice the
limit in the first window; a log in one document by compare-and-set is exact as well, but all edges that share a tenant
or a model contend for one record, and half of their writes fail at some hundred requests a second. Here a request costs
one addition (0.12 ms), and the first one of each second two.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from broker.errors import BrokerUnavailable
from producer.limits.store import Clock, Full, Row, Seen

Pause = Callable[[float], Awaitable[None]]

# A refusal holds for as many others as come within this time, without asking the broker.
_FULL_FOR_S = 0.05
# An addition is late at most once, unless the broker takes longer than a bucket is wide.
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """Seconds. `skew_s` is how far the clocks of two edges may be apart."""

    window_s: float = 60.0
    width_s: float = 1.0
    grace_s: float = 0.1
    skew_s: float = 0.025

    @staticmethod
    def of(window_s: float) -> "Shape":
        """Sixty buckets, but none below half a second."""
        return Shape(window_s, max(window_s / 60, 0.5))

    @property
    def margin_s(self) -> float:
        return self.grace_s + 2 * self.skew_s + 0.1

    def bucket_at(self, now: float) -> int:
        return math.floor(now / self.width_s)

    def end(self, bucket: int) -> float:
        return (bucket + 1) * self.width_s

    def leaves_at(self, bucket: int) -> float:
        """When it no longer counts."""
        return self.end(bucket) + self.window_s + self.margin_s

    def closed_at(self, bucket: int) -> float:
        """From when on nobody adds to it any more."""
        return self.end(bucket) + self.grace_s + 2 * self.skew_s

    def is_closed(self, bucket: int, now: float) -> bool:
        return now >= self.closed_at(bucket)

    def counting(self, now: float) -> range:
        """The buckets that count, up to the one that another edge may be in already."""
        first = math.floor((now - self.window_s - self.margin_s) / self.width_s)
        return range(first, self.bucket_at(now + 2 * self.skew_s) + 1)


class Taken(NamedTuple):
    """`amount` was added to `bucket`. `used` of the limit are in use, all of it free again in `reset_s`."""

    bucket: int
    amount: int
    used: int
    reset_s: float


class RollingWindow:
    """One counted thing, as one edge sees it. `clock` is the broker's, in seconds; used from one loop."""

    def __init__(self, row: Row, shape: Shape, clock: Clock, pause: Pause = asyncio.sleep) -> None:
        self._row = row
        self._shape = shape
        self._clock = clock
        self._pause = pause
        self._closed: dict[int, int] = {}
        self._own: dict[int, int] = {}
        self._full: tuple[float, int, Full] | None = None
        self._seen = Seen()

    def has_room(self, amount: int, limit: int) -> bool:
        """Whether `take` will most probably not raise Full."""
        return self._seen.has_room(amount, limit, self._clock())

    async def take(self, amount: int, limit: int) -> Taken:
        """Raises Full, and then nothing is taken; BrokerUnavailable, and then it may be."""
        self._raise_if_full(amount)
        for is_last in (False, True):
            bucket, total = await self._add_in_time(amount)
            now = self._clock()
            totals = {**await self._others(bucket, now), bucket: total}
            if sum(totals.values()) > limit:
                # Calls have ended meanwhile that took less than was reserved.
                await self._read_again(totals)
                totals |= {other: self._closed[other] for other in totals if other in self._closed and other != bucket}
            used = sum(totals.values())
            self._seen.note(used, now)
            if used <= limit:
                return Taken(bucket, amount, used, self._reset_s(totals, now))
            await self._add({bucket: -amount})
            if is_last or not await self._has_settled(bucket, totals, limit):
                break
        totals[bucket] -= amount
        full = Full(self._wait_s(totals, limit - amount, now), used - amount, self._reset_s(totals, now))
        self._full = (min(now + _FULL_FOR_S, now + (full.wait_s or 0.0)), amount, full)
        raise full

    async def settle(self, taken: Taken, used: int) -> None:
        """It came to `used`: what was taken too much is given back, what is missing is taken now, whatever the limit.

        Raises BrokerUnavailable.
        """
        now, difference = self._clock(), used - taken.amount
        if difference > 0:
            # Closed buckets never grow: that is what lets others keep their totals.
            await self._add_in_time(difference)
        elif difference < 0 and self._shape.leaves_at(taken.bucket) > now:
            await self._add({taken.bucket: difference})

    async def use(self) -> int:
        """What counts at this moment. Raises BrokerUnavailable."""
        return sum(max(count, 0) for count in (await self._row.look(self._shape.counting(self._clock()))).values())

    async def count_again(self) -> None:
        """The broker has lost its numbers: add what this edge had added. Raises BrokerUnavailable."""
        counting = self._shape.counting(self._clock())
        lost = {bucket: amount for bucket, amount in self._own.items() if amount > 0 and bucket in counting}
        if lost:
            await self._row.add(lost)

    def forget_old(self) -> bool:
        """Drop what counts no longer; whether nothing is left."""
        first = self._shape.counting(self._clock()).start
        for kept in (self._closed, self._own):
            for bucket in [bucket for bucket in kept if bucket < first]:
                del kept[bucket]
        return not self._own

    def _raise_if_full(self, amount: int) -> None:
        if self._full is None:
            return
        until, refused, full = self._full
        now = self._clock()
        if now >= until:
            self._full = None
        elif amount >= refused:
            raise Full(full.wait_s, full.used, full.reset_s)

    async def _has_settled(self, bucket: int, totals: dict[int, int], limit: int) -> bool:
        """Whether another try may end differently: after a wait, if it was only the other bucket at a boundary that was
        too much. Those who have added there may have met ours, and given back as we did.
        """
        now = self._clock()
        open_ones = [other for other in totals if other != bucket and not self._shape.is_closed(other, now)]
        if not open_ones or sum(totals.values()) - sum(totals[other] for other in open_ones) > limit:
            return False
        await self._pause(self._shape.closed_at(max(bucket, *open_ones) - 1) - now)
        return True

    async def _add_in_time(self, amount: int) -> tuple[int, int]:
        late: dict[int, int] = {}
        for _ in range(_TRIES):
            bucket = self._shape.bucket_at(self._clock())
            total = (await self._add({**late, bucket: amount}))[bucket]
            if self._clock() < self._shape.end(bucket) + self._shape.grace_s:
                return bucket, max(total, amount)
            late = {bucket: -amount}
        await self._add(late)
        raise BrokerUnavailable("the broker is too slow to count with")

    async def _add(self, changes: dict[int, int]) -> dict[int, int]:
        totals = await self._row.add(changes)
        for bucket, amount in changes.items():
            self._own[bucket] = self._own.get(bucket, 0) + amount
        return totals

    async def _others(self, own: int, now: float) -> dict[int, int]:
        counting = self._shape.counting(now)
        unknown = [bucket for bucket in counting if bucket != own and bucket not in self._closed]
        fresh = await self._read(unknown) if unknown else {}
        return {
            bucket: count
            for bucket in counting
            if bucket != own and (count := fresh.get(bucket, self._closed.get(bucket, 0))) > 0
        }

    async def _read_again(self, others: Iterable[int]) -> None:
        closed = [bucket for bucket in others if bucket in self._closed]
        if closed:
            await self._read(closed)

    async def _read(self, buckets: list[int]) -> dict[int, int]:
        asked_at = self._clock()
        seen = await self._row.look(buckets)
        counts = {bucket: max(seen.get(bucket, 0), 0) for bucket in buckets}
        for bucket, count in counts.items():
            if self._shape.is_closed(bucket, asked_at):
                self._closed[bucket] = count
        return counts

    def _wait_s(self, totals: dict[int, int], room_at: int, now: float) -> float | None:
        """Seconds until no more than `room_at` is in use."""
        left = sum(totals.values())
        for bucket in sorted(totals):
            if left <= room_at:
                break
            left -= totals[bucket]
            now = max(now, self._shape.leaves_at(bucket))
        return None if left > room_at else now - self._clock()

    def _reset_s(self, totals: dict[int, int], now: float) -> float:
        used = [self._shape.leaves_at(bucket) for bucket, count in totals.items() if count > 0]
        return max(max(used, default=now) - now, 0.0)
