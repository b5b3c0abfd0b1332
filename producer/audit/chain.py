"""The end of this edge's chain, and appending to it.

A block is conditional on the one before it. When its outcome is unknown the same block is offered again, so it is
stored once; only where two processes write under one id may its events come in twice.
"""

import secrets
import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from broker.audit_stream import AuditStream
from broker.errors import BrokerError, BrokerUnavailable, PayloadTooLarge, Refused, StreamFull, WrongSequence
from producer.audit.keys import AuditKeys
from producer.audit.record import Link, NotARecord, Writer, read_line, sealed_part, write_line
from schemas.audit import AuditEvent

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
        self._unknown: Block | None = None

    @property
    def is_unsure(self) -> bool:
        """Whether the events of the last `append` are to be given to the next one again, unchanged."""
        return self._unknown is not None

    async def append(self, events: Sequence[Dated], give_up_s: float) -> tuple[Block, int]:
        """Store events behind the chain's end; their block and its sequence. Raises NotStored."""
        deadline = time.monotonic() + give_up_s
        while True:
            left = max(0.1, deadline - time.monotonic())
            try:
                return await self._append(events, left)
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

    async def _append(self, events: Sequence[Dated], give_up_s: float) -> tuple[Block, int]:
        if self._end is None:
            self._end = await self._find_end(give_up_s)
        end, block = self._end, self._unknown
        if block is not None and block.end.mac == end.mac:
            self._unknown = None
            return block, end.seq
        is_offered_again = block is not None and block.behind == end
        if block is None or not is_offered_again:
            block = self._seal(events, end)
        self._unknown = block
        try:
            seq = await self._stream.append(self.writer.id, block.payload, behind=end.seq, give_up_s=give_up_s)
        except (StreamFull, PayloadTooLarge, Refused):
            if not is_offered_again:
                self._unknown = None
            raise
        self._unknown = None
        self._end = block.end._replace(seq=seq)
        return block, seq

    async def _find_end(self, give_up_s: float) -> Link:
        record = await self._stream.last(self.writer.id, give_up_s=give_up_s)
        if record is None:
            return Link()
        line = record.payload.rpartition(b"\n")[2]
        try:
            return Link(int(read_line(line)["n"]), sealed_part(line)[1], record.seq)
        except (NotARecord, KeyError, TypeError, ValueError) as error:
            _log.error("the last audit record is not one: the chain begins anew", seq=record.seq, error=str(error))
            return Link(seq=record.seq)

    def _seal(self, events: Sequence[Dated], behind: Link) -> Block:
        lines, end = [], behind
        for event, at in events:
            line = write_line(self._keys, self.writer, end, event, at)
            lines.append(line)
            end = Link(end.number + 1, sealed_part(line)[1], behind.seq)
        return Block(tuple(lines), behind, end)
