"""The copy of this edge's chain in its audit log: what it lacks is read from the stream, so it has no holes."""

import asyncio
from collections.abc import Iterable

from broker.audit_stream import AuditStream
from producer.audit.chain import Block
from producer.audit.keys import AuditKeys
from producer.audit.line import NotARecord, parse, with_place
from producer.audit.log_file import AuditLog
from producer.audit.record import Link


class LogCopy:
    """Used by one task. `is_behind`: the stream has records of ours that the file has not got yet."""

    def __init__(self, log: AuditLog, stream: AuditStream, keys: AuditKeys, writer: str) -> None:
        self._log = log
        self._stream = stream
        self._keys = keys
        self._writer = writer
        self._end: Link | None = None
        self._is_sure = False  # whether the file has what `_end` says, and no more
        self.is_behind = False

    async def follow(self, block: Block, seq: int, *, to_disk: bool) -> None:
        """Add a block that was stored, behind all before it. Raises OSError, BrokerError: then it is behind."""
        self.is_behind = True
        end = await self._locate(block.behind)
        if end.number < block.behind.number:
            await self._read_on(end, seq - 1)
        await self._append(block.lines, seq, to_disk=to_disk)
        self.is_behind = False

    async def catch_up(self) -> None:
        """Add what the stream has. Raises OSError, BrokerError."""
        if self._end is not None:
            _, through = await self._stream.bounds()
            await self._read_on(await self._locate(self._end), through)
            self.is_behind = False

    async def _locate(self, behind: Link) -> Link:
        """The last record in the file, which should not be behind `behind`."""
        if not self._is_sure:
            found = await asyncio.to_thread(self._find_end)
            # A file without a record of this writer goes on where the one before it ended, or begins here.
            if found is not None and (self._end is None or found.number > self._end.number):
                self._end = found
            self._is_sure = True
        if self._end is None or self._end.number > behind.number:  # or the stream is a new one
            self._end = behind
        return self._end

    async def _read_on(self, end: Link, through: int) -> None:
        start = end.seq
        while page := await self._stream.read(start, through, self._writer):
            for record in page:
                await self._append(record.payload.split(b"\n"), record.seq, to_disk=False)
            start = page[-1].seq + 1

    def close(self) -> None:
        self._log.close()

    async def _append(self, lines: Iterable[bytes], seq: int, *, to_disk: bool) -> None:
        assert self._end is not None
        end, new = self._end, []
        for line in lines:
            try:
                parsed = parse(line)
            except NotARecord:  # not ours to judge: it is copied, and verification tells
                new.append(line)
                continue
            if parsed.number > end.number:
                new.append(with_place(self._keys, line, seq))
                end = Link(parsed.number, parsed.mac, seq)
        if new:
            self._is_sure = False
            await asyncio.to_thread(self._log.append, new, to_disk=to_disk)
            self._is_sure = True
        self._end = end

    def _find_end(self) -> Link | None:
        for raw in self._log.tail():
            try:
                line = parse(raw)
            except NotARecord:
                continue
            if line.writer == self._writer and line.seq:
                return Link(line.number, line.mac, line.seq)
        return None
