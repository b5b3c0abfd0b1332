"""All that one call takes from its limits, from admission to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from broker.errors import BrokerError
from producer.edge.background import Background
from producer.limits.entries import Entry, Kind
from producer.limits.refusal import Refusal, refused
from producer.limits.rules import Rule, Who
from producer.limits.standing import Standing, headers
from producer.limits.store import Full
from schemas.errors import ErrorCode, ServingError

_log = structlog.stdlib.get_logger("inferflux.limits")

# Whose standing a client may see: not that of the model, which others use as well.
_SHOWN = (Who.KEY, Who.TENANT)
_NAMES = {Kind.REQUESTS: "requests", Kind.TOKENS: "tokens"}


@dataclass(frozen=True, slots=True)
class Item:
    """`amount` to be taken from one limit."""

    rule: Rule
    kind: Kind
    amount: int
    limit: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Facts:
    """What the limiter knows of a call's model, and wants to know. `service_s` is how long a request of it runs;
    `note_size` hears what a prompt was estimated at and came to; `note_refusal` that a limit was met.
    """

    service_s: Callable[[], float]
    note_size: Callable[[int, int], None]
    note_refusal: Callable[[], None]


class Charge:
    """Taken once, then given back or ended, once; whatever comes later is ignored."""

    def __init__(self, items: Iterable[Item], background: Background, facts: Facts) -> None:
        self._items = list(items)
        self._background = background
        self.facts = facts
        self._standings: list[tuple[Item, Standing]] = []
        self._taken: list[Entry] = []
        self._taking: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Take it, or only begin to where there most probably is room. Raises as `decided` does."""
        if all(item.entry.has_room(item.limit) for item in self._items):
            self._taking = asyncio.create_task(self._take(), name="take from limits")
        else:
            await self._take()

    async def decided(self) -> None:
        """Wait until it is taken. The call must not be queued before.

        Raises ServingError (rate_limited, budget_exceeded, broker_unavailable), and then nothing is held.
        """
        if self._taking is not None:
            await self._taking

    async def _take(self) -> None:
        results = await self._try_all()
        refusals = [
            Refusal(item.rule, item.kind, item.amount, item.limit, result)
            for item, result in zip(self._items, results, strict=True)
            if isinstance(result, Full)
        ]
        failures = [result for result in results if isinstance(result, BaseException) and not isinstance(result, Full)]
        if not refusals and not failures:
            return
        self._settle_taken(_undo)
        if refusals:
            self.facts.note_refusal()
            raise refused(refusals, self.facts.service_s())
        if isinstance(failures[0], BrokerError):
            raise not_counted(failures[0]) from failures[0]
        raise failures[0]

    def give_back(self) -> None:
        """The call was not queued."""
        self._finish(_undo)

    def end(self, num_tokens: int) -> None:
        """The call is over, and came to so many tokens, prompt and answer."""
        self._finish(lambda entry: entry.end(num_tokens))

    def headers(self) -> dict[str, str]:
        """How the key stands, or the tenant where the key has no such limit."""
        shown: dict[str, str] = {}
        for item, standing in self._standings:
            name = _NAMES.get(item.kind)
            if name is not None and item.rule.who in _SHOWN and f"x-ratelimit-limit-{name}" not in shown:
                shown |= headers(name, standing)
        return shown

    async def _try_all(self) -> list[BaseException | None]:
        if len(self._items) == 1:
            return [await self._try(self._items[0])]
        return await asyncio.gather(*(self._try(item) for item in self._items))

    async def _try(self, item: Item) -> BaseException | None:
        try:
            if item.amount > item.limit:
                raise Full(None, 0)
            standing = await item.entry.take(item.limit)
        except Full as full:
            self._standings.append((item, Standing(item.limit, full.used, full.reset_s)))
            return full
        except Exception as error:
            return error
        self._standings.append((item, standing))
        self._taken.append(item.entry)
        return None

    def _finish(self, how: Callable[[Entry], Awaitable[None]]) -> None:
        if self._taking is None or self._taking.done():
            self._settle_taken(how)
        else:
            # Refused by something else meanwhile.
            self._taking.add_done_callback(lambda _: self._settle_taken(how))
        if self._taking is not None:
            self._taking.add_done_callback(_look_at)

    def _settle_taken(self, how: Callable[[Entry], Awaitable[None]]) -> None:
        taken, self._taken = self._taken, []
        if taken:
            self._background.spawn(_each(taken, how), "settle limits")


async def _undo(entry: Entry) -> None:
    await entry.undo()


def _look_at(taking: asyncio.Task[None]) -> None:
    """Nobody waits for it any more: its failure is none."""
    if not taking.cancelled():
        taking.exception()


async def _each(entries: list[Entry], how: Callable[[Entry], Awaitable[None]]) -> None:
    for result in await asyncio.gather(*(how(entry) for entry in entries), return_exceptions=True):
        if isinstance(result, BrokerError):
            # It is counted until its window or lease is over.
            _log.warning("not settled", error=str(result))
        elif isinstance(result, BaseException):
            raise result


def not_counted(error: BrokerError) -> ServingError:
    """Without the counters nothing can be queued either."""
    return ServingError(
        ErrorCode.BROKER_UNAVAILABLE,
        f"The request could not be counted: {error}",
        retryable=True,
        retry_after_s=2,
    )
