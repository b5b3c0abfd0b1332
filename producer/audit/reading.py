"""Reading the record: find, verify, export. Costs the broker pages of blocks, and this process one page at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from broker.audit_stream import AuditStream
from broker.records import Record
from producer.audit.export import end_line, head_line
from producer.audit.keys import AuditKeys
from producer.audit.line import NotARecord, parse, with_place
from producer.audit.query import Place, Query, shown
from producer.audit.record import Link
from producer.audit.report import Problem, Report
from producer.audit.verifier import STREAM, Verifier

# Records are stored a little later than they say, and clocks differ.
_SKEW_S = 300.0
_WINDOW = 64
_MAX_WINDOWS = 256


class Page(NamedTuple):
    """`after` leads to the records behind these; None when there are none."""

    records: list[dict[str, Any]]
    after: Place | None


class AuditReader:
    """`own_end` tells how far the chain of `writer`, this edge, went."""

    def __init__(self, stream: AuditStream, keys: AuditKeys, writer: str, own_end: Callable[[], Link]) -> None:
        self._stream = stream
        self._keys = keys
        self._writer = writer
        self._own_end = own_end

    async def find(self, query: Query) -> Page:
        """The records that fit, at most `limit`; fewer where many had to be looked at. Raises BrokerUnavailable."""
        found: list[dict[str, Any]] = []
        place = query.after
        async for place, fields in self._scan(query):
            if fields is None:
                return Page(found, place)
            if query.fits(fields):
                if len(found) == query.limit:
                    return Page(found, Place.parse(found[-1]["id"]))
                found.append(shown(place, fields))
        return Page(found, None)

    async def verify(self) -> Report:
        """All that is in the stream. Raises BrokerUnavailable."""
        own_end = self._own_end()
        first, last = await self._stream.bounds()
        verifier = Verifier(self._keys, STREAM, first_seq=first)
        async for page in self._pages(first, last):
            await asyncio.to_thread(_feed, verifier, page)
        report = verifier.finish(own_end, self._writer)
        if last >= first and report.last_seq < last and report.is_ok:
            report.add(Problem(0, report.last_seq + 1, "", 0, f"sequence {report.last_seq + 1} is not there"))
        return report

    async def export(self) -> AsyncIterator[bytes]:
        """Lines of an export of everything, some at a time. Raises BrokerUnavailable, also in the middle."""
        first, last = await self._stream.bounds()
        head = head_line(self._keys, first, last, time.time())
        yield head + b"\n"
        num_records = 0
        async for page in self._pages(first, last):
            lines = [with_place(self._keys, line, record.seq) for record in page for line in _lines(record)]
            num_records += len(lines)
            yield b"".join(line + b"\n" for line in lines)
        yield end_line(self._keys, head, num_records) + b"\n"

    async def _pages(self, start: int, through: int) -> AsyncIterator[list[Record]]:
        while page := await self._stream.read(start, through):
            yield page
            start = page[-1].seq + 1

    async def _scan(self, query: Query) -> AsyncIterator[tuple[Place, dict[str, Any] | None]]:
        """The records behind `after` in the order asked for; at last, where the search was broken off, None."""
        first, last = await self._stream.bounds()
        if query.since is not None:
            first = await self._stream.since(query.since - _SKEW_S) or last + 1
        if query.is_newest_first:
            last = min(last, query.after.seq) if query.after is not None else last
        elif query.after is not None:
            first = max(first, query.after.seq)
        for _ in range(_MAX_WINDOWS):
            if first > last:
                return
            begin = max(first, last - _WINDOW + 1) if query.is_newest_first else first
            end = last if query.is_newest_first else min(last, first + _WINDOW - 1)
            places = [each async for page in self._pages(begin, end) for each in _parsed(page)]
            for place, fields in reversed(places) if query.is_newest_first else places:
                if query.after is None or (place < query.after if query.is_newest_first else place > query.after):
                    yield place, fields
            if query.is_newest_first:
                last = begin - 1
            else:
                first = end + 1
        if first <= last:
            yield Place(last + 1, 0) if query.is_newest_first else Place(first - 1, 1 << 30), None


def _lines(record: Record) -> list[bytes]:
    return record.payload.split(b"\n")


def _parsed(page: list[Record]) -> list[tuple[Place, dict[str, Any]]]:
    """What can be read; verification tells of the rest."""
    found = []
    for record in page:
        for number, raw in enumerate(_lines(record)):
            try:
                found.append((Place(record.seq, number), dict(parse(raw).fields)))
            except NotARecord:
                continue
    return found


def _feed(verifier: Verifier, page: list[Record]) -> None:
    for record in page:
        for line in _lines(record):
            verifier.feed(line, seq=record.seq)
