"""Brings events into the chain: in order, many at a time, and what has to be there before something may happen."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from broker.errors import BrokerError
from producer.audit.chain import Block, Chain, Dated, NotStored
from producer.audit.log_copy import LogCopy
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError

_log = structlog.stdlib.get_logger("inferflux.audit")

_MAX_WAITING = 10_000
_MAX_BLOCK = 256
# Well below what a broker takes as one message.
_MAX_BLOCK_BYTES = 512 * 1024
_RECORD_BYTES = 2 * 1024
_ATTEMPT_S = 3.0
_REQUIRE_S = 8.0
_RETRY_S = 0.5
_MAX_RETRY_S = 5.0
GAP = "audit.gap"


@dataclass(slots=True, eq=False)
class _Item:
    """`stored` is set for what somebody waits for; `loss` for the record of a gap."""

    dated: Dated
    stored: asyncio.Future[None] | None = None
    loss: "_Loss | None" = None


@dataclass(slots=True)
class _Loss:
    """Events that were given up, and when the first and the last of them happened (Unix time)."""

    number: int = 0
    since: float = 0.0
    until: float = 0.0

    def add(self, at: float) -> None:
        self.since = at if self.number == 0 else self.since
        self.until = at
        self.number += 1

    def put_back(self, earlier: "_Loss") -> None:
        self.until = self.until if self.number else earlier.until
        self.since = earlier.since
        self.number += earlier.number


@dataclass(slots=True)
class AuditWriter:
    """`run` is one task. What cannot be written waits, up to a bound; what is beyond is counted, and a record of the
    gap says how many there were.
    """

    chain: Chain
    on_lost: Callable[[], None]
    copy: LogCopy | None = None
    _waiting: deque[_Item] = field(default_factory=deque)
    _batch: list[_Item] = field(default_factory=list)
    _loss: _Loss = field(default_factory=_Loss)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _urgent: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _refused: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: AuditEvent) -> None:
        """Record it as soon as possible. Never waits."""
        self._put(_Item(Dated(event, time.time())))

    async def require(self, event: AuditEvent) -> None:
        """Record it, or raise ServingError (audit_unavailable): then what it is about must not happen."""
        item = _Item(Dated(event, time.time()), asyncio.get_running_loop().create_future())
        assert item.stored is not None
        if not self._put(item):
            raise _unavailable("too many events wait already")
        self._urgent.set()
        try:
            async with asyncio.timeout(_REQUIRE_S):
                await item.stored
        except (TimeoutError, NotStored) as error:
            with contextlib.suppress(ValueError):
                self._waiting.remove(item)
            self.note(replace(event, outcome=Outcome.FAILED, reason=str(ErrorCode.AUDIT_UNAVAILABLE)))
            raise _unavailable(str(error) or "no answer in time") from error

    async def run(self) -> None:
        """Until cancelled."""
        pause = _RETRY_S
        while True:
            if not self._pending:
                self._idle.set()
                await self._wait()
                continue
            self._wake.clear()
            if await self._write():
                pause = _RETRY_S
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._urgent.wait()
            pause = min(2 * pause, _MAX_RETRY_S)

    async def flush(self, timeout_s: float) -> bool:
        """Try to record what waits; False when an attempt fails or it takes longer."""
        self._refused.clear()
        self._urgent.set()
        waited = {asyncio.create_task(self._idle.wait()), asyncio.create_task(self._refused.wait())}
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for each in waited:
            each.cancel()
        return not self._pending

    def close(self) -> None:
        """After `run` has ended. What waits still is lost, and counted."""
        left = [*self._batch, *self._waiting]
        if left:
            _log.error("audit records are lost", number=len(left))
        for item in left:
            self._lose(item)
        if self.copy is not None:
            self.copy.close()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting) + len(self._batch)

    @property
    def _pending(self) -> bool:
        return bool(self._waiting or self._batch or self._loss.number)

    def _put(self, item: _Item) -> bool:
        if self.num_waiting >= _MAX_WAITING:
            self._lose(item)
            return False
        self._waiting.append(item)
        self._idle.clear()
        self._wake.set()
        return True

    def _lose(self, item: _Item) -> None:
        self._loss.add(item.dated.at)
        self.on_lost()

    async def _write(self) -> bool:
        """Offer what waits, as much of it as goes into a block; whether it was stored."""
        self._urgent.clear()
        if not self._batch:
            self._fill()
        try:
            block, seq = await self.chain.append([item.dated for item in self._batch], _ATTEMPT_S)
        except NotStored as error:
            self._refuse(error)
            return False
        except Exception as error:
            # One event that cannot be written must not end the audit of all others.
            _log.error("audit records are given up", number=len(self._batch), exc_info=error)
            self._give_up()
            return True
        await self._stored(block, seq)
        return True

    def _give_up(self) -> None:
        batch, self._batch = self._batch, []
        for item in batch:
            self._lose(item)
            if item.stored is not None and not item.stored.done():
                item.stored.set_exception(NotStored("it cannot be written", is_certain=True))

    def _fill(self) -> None:
        if self._loss.number:
            self._batch.append(_gap(self._loss))
            self._loss = _Loss()
        size = 0
        while self._waiting and len(self._batch) < _MAX_BLOCK:
            size += _size_bound(self._waiting[0].dated.event)
            if size > _MAX_BLOCK_BYTES and self._batch:
                return
            self._batch.append(self._waiting.popleft())

    async def _wait(self) -> None:
        """Until there is something to do, which may be a file that has to catch up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MAX_RETRY_S if self.copy is not None and self.copy.is_behind else None):
                await self._wake.wait()
            self._wake.clear()
            return
        if self.copy is not None:
            with contextlib.suppress(OSError, BrokerError):
                await self.copy.catch_up()

    async def _stored(self, block: Block, seq: int) -> None:
        """It is in the stream, and now comes into the file."""
        batch, self._batch = self._batch, []
        waits = [item.stored for item in batch if item.stored is not None and not item.stored.done()]
        failure = await self._copy(block, seq, to_disk=bool(waits))
        for stored in waits:
            if stored.done():
                continue
            if failure is None:
                stored.set_result(None)
            else:
                stored.set_exception(failure)

    async def _copy(self, block: Block, seq: int, *, to_disk: bool) -> NotStored | None:
        if self.copy is None:
            return None
        try:
            await self.copy.follow(block, seq, to_disk=to_disk)
        except OSError as error:
            _log.warning("the audit log cannot be written", error=str(error))
            return NotStored(f"the audit log cannot be written ({error.strerror})", is_certain=False)
        except BrokerError as error:
            return NotStored(str(error), is_certain=False)
        return None

    def _refuse(self, error: NotStored) -> None:
        """Tell those who wait. What they waited for is left out from now on, unless it may be stored yet."""
        self._refused.set()
        _log.warning("audit records wait", number=self.num_waiting, error=str(error))
        for item in self._batch:
            if item.stored is not None and not item.stored.done():
                item.stored.set_exception(error)
        if not error.is_certain:
            return
        batch, self._batch = self._batch, []
        for item in reversed(batch):
            if item.loss is not None:
                self._loss.put_back(item.loss)
            elif item.stored is None:
                self._waiting.appendleft(item)


def _gap(loss: _Loss) -> _Item:
    event = AuditEvent(
        action=GAP,
        outcome=Outcome.FAILED,
        reason="not_recorded",
        details={"count": loss.number, "since": round(loss.since, 3), "until": round(loss.until, 3)},
    )
    return _Item(Dated(event, time.time()), loss=loss)


def _size_bound(event: AuditEvent) -> int:
    """No record of the event is larger: a character may take six bytes."""
    return _RECORD_BYTES + 6 * sum(len(value) for value in event.details.values() if isinstance(value, str))


def _unavailable(reason: str) -> ServingError:
    return ServingError(
        ErrorCode.AUDIT_UNAVAILABLE,
        f"The change was not made, since it cannot be recorded: {reason}.",
        retryable=True,
        retry_after_s=5,
    )
