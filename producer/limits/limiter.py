"""The limits of this edge: which counters there are, kept alive and on the broker's time."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from broker.broker_clock import BrokerClock
from broker.connection import Connection
from broker.counters import Counters
from broker.errors import BrokerError
from broker.subjects import STREAM_LIMITS, STREAM_LIMITS_DAILY, day_counter, minute_counter
from producer.config import KeySpec
from producer.edge.background import Background
from producer.limits.charge import Charge, Facts, Item
from producer.limits.day import DayBudget
from producer.limits.entries import DayEntry, Entry, Kind, RequestsEntry, RunningEntry, TokensEntry
from producer.limits.holds import Holds
from producer.limits.rolling import RollingWindow, Shape
from producer.limits.row import CounterRow
from producer.limits.rules import Rule, Rules, Who
from producer.limits.sizes import PromptSizes
from producer.policy.effective import EffectivePolicy
from schemas.requests import Endpoint, Identity

_log = structlog.stdlib.get_logger("inferflux.limits")

LEASE_S = 3.0
_FIELDS = {
    Kind.REQUESTS: "requests_per_minute",
    Kind.TOKENS: "tokens_per_minute",
    Kind.RUNNING: "concurrent_requests",
    Kind.DAY: "tokens_per_day",
}
_CLOCK_S = 10.0
_ROUND_S = 1.0


class Ask(NamedTuple):
    """What a call may come to. Each prompt is a request."""

    endpoint: Endpoint
    num_requests: int
    num_tokens: int


class Use(NamedTuple):
    """`limit_name` is the field of a LimitSet."""

    who: Who
    name: str
    limit_name: str
    limit: int
    used: int


class _Counted(NamedTuple):
    who: Who
    name: str
    kind: Kind


class Limiter:
    """Costs nothing while there is no limit. `service_s` tells how long a request of a model runs."""

    def __init__(
        self,
        connection: Connection,
        edge_id: str,
        owner_of: Callable[[KeySpec], str],
        background: Background,
        service_s: Callable[[str], float],
        note_refusal: Callable[[], None],
        *,
        window_s: float = 60.0,
    ) -> None:
        self._connection = connection
        self._counters = Counters(connection)
        self._clock = BrokerClock(connection, self._counters, edge_id)
        self._owner_of = owner_of
        self._background = background
        self._service_s = service_s
        self._note_refusal = note_refusal
        self.sizes = PromptSizes()
        self._shape = Shape.of(window_s)
        self._rules: Rules | None = None
        self._windows: dict[_Counted, RollingWindow] = {}
        self._holds: dict[_Counted, Holds] = {}
        self._days: dict[_Counted, DayBudget] = {}
        self._used_at: dict[_Counted, float] = {}
        self._reading = asyncio.Lock()
        self._num_reconnects = -1
        self._births = 0

    def learn(self, policy: EffectivePolicy) -> None:
        """From now on these limits hold. What was used already counts against them."""
        self._rules = Rules(policy, self._owner_of)

    def rules_of(self, identity: Identity, model: str) -> list[Rule]:
        return self._rules.of(identity, model) if self._rules is not None else []

    async def charge(self, rules: list[Rule], model: str, ask: Ask) -> Charge:
        """The charge of a call, not taken yet. Raises BrokerUnavailable."""
        await self._be_in_time()
        items = [item for rule in rules for item in self._items(rule, ask)]
        facts = Facts(
            partial(self._service_s, model), partial(self.sizes.note, model, ask.endpoint), self._note_refusal
        )
        return Charge(items, self._background, facts)

    async def uses(self) -> list[Use]:
        """What is used of every limit now. Raises BrokerUnavailable."""
        rules = self._rules.all() if self._rules is not None else []
        if not rules:
            return []
        await self._be_in_time()
        return [await self._use(rule, kind, limit) for rule in rules for kind, limit in _limits(rule) if limit]

    async def _use(self, rule: Rule, kind: Kind, limit: int) -> Use:
        counted = _Counted(rule.who, rule.name, kind)
        return Use(rule.who, rule.name, _FIELDS[kind], limit, await self._counter(counted).use())

    async def run(self) -> None:
        """Keep what is held, and the time, until cancelled."""
        self._connection.on_reconnect(self._reconnected)
        try:
            while True:
                await asyncio.sleep(_ROUND_S)
                if not (self._windows or self._holds):
                    continue
                try:
                    await self._be_in_time(older_than_s=_CLOCK_S)
                    await asyncio.gather(*(holds.renew() for holds in self._holds.values()))
                except BrokerError as error:
                    _log.warning("limits not renewed", error=str(error))
                self._forget_idle()
        finally:
            self._connection.remove_on_reconnect(self._reconnected)

    async def _reconnected(self) -> None:
        if self._windows or self._holds:
            with contextlib.suppress(BrokerError):  # tried again before anything else is counted
                await self._be_in_time()

    async def _be_in_time(self, older_than_s: float | None = None) -> None:
        """Read the broker's clock if need be, and count again what it has lost. Raises BrokerUnavailable."""
        if self._is_in_time(older_than_s):
            return
        async with self._reading:
            if self._is_in_time(older_than_s):
                return
            reconnects = self._connection.reconnects
            await self._clock.read()
            if self._births != self._counters.births:
                await self._count_again()
                self._births = self._counters.births
            self._num_reconnects = reconnects

    def _is_in_time(self, older_than_s: float | None) -> bool:
        if self._clock.read_at is None or self._num_reconnects != self._connection.reconnects:
            return False
        return older_than_s is None or time.monotonic() - self._clock.read_at < older_than_s

    async def _count_again(self) -> None:
        _log.warning("the broker has lost the counters of this minute; counting again what this edge knows")
        for holds in self._holds.values():
            holds.count_again()
        await asyncio.gather(
            *(window.count_again() for window in self._windows.values()),
            *(holds.renew() for holds in self._holds.values()),
        )

    def _forget_idle(self) -> None:
        oldest = time.monotonic() - 2 * self._shape.window_s
        for counted, used_at in list(self._used_at.items()):
            window, holds = self._windows.get(counted), self._holds.get(counted)
            is_idle = (window is None or window.forget_old()) and (holds is None or holds.is_idle)
            if is_idle and used_at < oldest:
                self._windows.pop(counted, None)
                self._holds.pop(counted, None)
                self._days.pop(counted, None)
                del self._used_at[counted]

    def _items(self, rule: Rule, ask: Ask) -> list[Item]:
        items = []
        for kind, limit in _limits(rule):
            amount = ask.num_tokens if kind in (Kind.TOKENS, Kind.DAY) else ask.num_requests
            if limit:
                items.append(Item(rule, kind, amount, limit, self._entry(_Counted(rule.who, rule.name, kind), amount)))
        return items

    def _entry(self, counted: _Counted, amount: int) -> Entry:
        self._used_at[counted] = time.monotonic()
        match counted.kind:
            case Kind.REQUESTS:
                return RequestsEntry(self._window(counted), amount)
            case Kind.TOKENS:
                return TokensEntry(self._window(counted), amount)
            case Kind.RUNNING:
                return RunningEntry(self._hold(counted), amount)
            case Kind.DAY:
                return DayEntry(self._day(counted), amount)

    def _counter(self, counted: _Counted) -> RollingWindow | Holds | DayBudget:
        self._used_at[counted] = time.monotonic()
        match counted.kind:
            case Kind.REQUESTS | Kind.TOKENS:
                return self._window(counted)
            case Kind.RUNNING:
                return self._hold(counted)
            case Kind.DAY:
                return self._day(counted)

    def _window(self, counted: _Counted) -> RollingWindow:
        if counted not in self._windows:
            self._windows[counted] = RollingWindow(self._row(counted), self._shape, self._clock.now)
        return self._windows[counted]

    def _hold(self, counted: _Counted) -> Holds:
        if counted not in self._holds:
            self._holds[counted] = Holds(self._row(counted), LEASE_S, self._clock.now)
        return self._holds[counted]

    def _day(self, counted: _Counted) -> DayBudget:
        if counted not in self._days:
            self._days[counted] = DayBudget(self._row(counted), self._clock.now)
        return self._days[counted]

    def _row(self, counted: _Counted) -> CounterRow:
        if counted.kind is Kind.DAY:
            return CounterRow(self._counters, STREAM_LIMITS_DAILY, lambda day: day_counter(*counted, day))
        return CounterRow(self._counters, STREAM_LIMITS, lambda number: minute_counter(*counted, number))


def _limits(rule: Rule) -> list[tuple[Kind, int]]:
    """The limits of a rule by kind; 0 is none."""
    return [(kind, getattr(rule.limits, field)) for kind, field in _FIELDS.items()]
