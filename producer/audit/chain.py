"""The end of this edge's chain, and appending to it.

A block is conditional on the one before it. When its outcome is unknown the same block is offered again, so it is
stored once; only where two processes write under one id may its events come in twice.
"""

import math
import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from broker.audit_stream import AuditStream
from broker.errors import BrokerError, BrokerUnavailable, PayloadTooLarge, Refused, StreamFull, WrongSequence
from broker.records import Record
from producer.audit.keys import AuditKeys
from producer.audit.line import Line, NotARecord, parse
from producer.audit.record import Link, Seen, Writer, write_line
from schemas.audit import AuditEvent

# How often it is looked for the newest record of all, to be named in the next one: each time costs a request.
_LOOK_S = 1.0
_log = structlog.stdlib.get_logger("inferflux.audit")


class Dated(NamedTuple):
    """An event and when it happened, Unix time."""

    event: AuditEvent
    at: float


class Block(NamedTuple):
    """Records as they are stored together. `behind` is the end of the chain that they follow, `end` the one after
    them, but for its sequence, which storing gives it.
    """

    lines: tuple[bytes, ...]
    behind: Link
    end: Link

    @property
    def payload(self) -> bytes:
        return b"\n".join(self.lines)


class NotStored(Exception):
    """The events are not in the chain. `is_certain` False: they may come into it yet."""

    def __init__(self, reason: str, *, is_certain: bool) -> None:
        super().__init__(reason)
        self.is_certain = is_certain


class Chain:
    """Used by one task."""

    def __init__(self, stream: AuditStream, keys: AuditKeys, writer: str) -> None:
        self._stream = stream
        self._keys = keys
        self.writer = Writer(writer, secrets.token_hex(4))
        self._end: Link | None = None
        self._farthest = Link()
        self._seen: Seen | None = None
        self._looked_at = -math.inf
        self._unknown: Block | None = None

    @property
    def farthest(self) -> Link:
        """The last record that was stored for sure, even if the stream has lost it."""
        return self._farthest

    async def append(self, events: Sequence[Dated], give_up_s: float) -> tuple[Block, int]:
        """Store events behind the chain's end; their block and its sequence. Raises NotStored."""
        deadline = time.monotonic() + give_up_s
        while True:
            try:
                return await self._append(events, deadline)
            except WrongSequence as error:
                # Another process writes under our id, or what was offered before has arrived.
                self._end = None
                if time.monotonic() >= deadline:
                    raise NotStored(str(error), is_certain=False) from error
            except BrokerUnavailable as error:
                self._end = None
                raise NotStored(str(error), is_certain=self._unknown is None) from error
            except BrokerError as error:
                raise NotStored(str(error), is_certain=self._unknown is None) from error

    async def _append(self, events: Sequence[Dated], deadline: float) -> tuple[Block, int]:
        if self._end is None:
            self._end = await self._find_end(_left(deadline))
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._seen = await self._look(_left(deadline))
            self._looked_at = time.monotonic()
        end, block = self._end, self._unknown
        if block is not None and block.end.mac == end.mac:
            self._unknown = self._seen = None
            self._note_stored(end)
            return block, end.seq
        is_offered_again = block is not None and block.behind == end
        if block is None or not is_offered_again:
            block = self._seal(events, end)
        self._unknown = block
        try:
            seq = await self._stream.append(self.writer.id, block.payload, behind=end.seq, give_up_s=_left(deadline))
        except (StreamFull, PayloadTooLarge, Refused):
            if not is_offered_again:
                self._unknown = None
            raise
        self._unknown = self._seen = None
        self._end = block.end._replace(seq=seq)
        self._note_stored(self._end)
        return block, seq

    def _note_stored(self, end: Link) -> None:
        if end.number > self._farthest.number:
            self._farthest = end

    async def _find_end(self, give_up_s: float) -> Link:
        own = await self._stream.last(self.writer.id, give_up_s=give_up_s)
        line = _last_line(own)
        if own is None:
            return Link()
        return Link(line.number, line.mac, own.seq) if line is not None else Link(seq=own.seq)

    async def _look(self, give_up_s: float) -> Seen | None:
        """The newest record of all, for the next one to name."""
        newest = await self._stream.last(give_up_s=give_up_s)
        line = _last_line(newest)
        return Seen(newest.seq, line.mac) if newest is not None and line is not None else None

    def _seal(self, events: Sequence[Dated], behind: Link) -> Block:
        lines, end, seen = [], behind, self._seen
        for event, at in events:
            line = write_line(self._keys, self.writer, end, event, at, seen)
            lines.append(line)
            end, seen = Link(end.number + 1, parse(line).mac, behind.seq), None
        return Block(tuple(lines), behind, end)


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _last_line(record: Record | None) -> Line | None:
    """None where there is no block, or what is there is none."""
    if record is None:
        return None
    try:
        return parse(record.payload.rpartition(b"\n")[2])
    except NotARecord as error:
        _log.error("the last audit record is not one", seq=record.seq, error=str(error))
        return None
