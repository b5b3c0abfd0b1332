"""A journal that this edge did not open: another edge's, or one of its own from before a restart."""

import asyncio
import time
from typing import NamedTuple

from broker.connection import Connection
from broker.reader import JournalReader, StartAt
from broker.records import Record, get_record
from broker.subjects import STREAM_TOKENS, journal, parse_journal
from schemas.codec import CodecError, decode_event
from schemas.events import Accepted, Cancelled, Event, Progress, Started
from schemas.fold import Fold

# As long as a submission: a cluster that elects a leader takes 5 to 8 s.
_GIVE_UP_S = 10.0


class FollowedView:
    """Reads one journal from its first record on, then live, with the same fold as everybody else.

    `ended_at`: when its end was stored, as Unix time by the broker's clock.
    """

    def __init__(self, connection: Connection, edge: str, request_id: str, first_seq: int) -> None:
        self.fold = Fold()
        self.progress: Progress | None = None
        self.last_activity = time.monotonic()
        self.ended_at: float | None = None
        self._news = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._reader = JournalReader(
            connection,
            STREAM_TOKENS,
            journal(edge, request_id).all,
            self._on_record,
            start=StartAt.sequence(first_seq),
        )

    async def start(self) -> None:
        """Returns once everything written so far has been folded."""
        await self._reader.start()
        await self._reader.caught_up()

    async def changed(self, length: int, timeout_s: float | None) -> bool:
        """Wait for more than `length` tokens, the end or other news; False when time ran out."""
        if self.fold.length > length or self.fold.terminal is not None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._reader.close())

    def _on_record(self, subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        self.last_activity = time.monotonic()
        event = _decode(payload)
        if isinstance(event, Progress):
            self.progress = event
        elif event is not None and not self.fold.feed(event, seq) and not isinstance(event, Started):
            return
        if self.fold.terminal is not None and self.ended_at is None:
            self.ended_at = self._reader.stored_ns / 1e9
        # Each wait has its own event, so that news is never missed and never seen twice.
        self._news.set()
        self._news = asyncio.Event()


class Found(NamedTuple):
    """Where a journal is, its first record, and what it was opened with, which in a cluster may be its second."""

    edge: str
    first_seq: int
    accepted: Accepted


class Unreadable(NamedTuple):
    """An id that was used, without a journal to read: `reason` is that of the mark in its place. None: its beginning
    was cut by age or for want of room, or it is somebody else's.
    """

    reason: str | None


async def find_journal(connection: Connection, request_id: str) -> Found | Unreadable | None:
    """The journal of a request, whichever edge owns it; None when there is no record. Raises BrokerUnavailable."""
    if await _get(connection, {"last_by_subj": f"inferflux.tok.*.{request_id}.*"}) is None:
        return None
    first = await _get(connection, {"seq": 1, "next_by_subj": f"inferflux.tok.*.{request_id}.*"})
    head, event = first, _event_of(first)
    if not isinstance(event, Accepted):
        # The request is published together with it, and where each stream has another leader a claim may be faster.
        head = await _get(connection, {"seq": 1, "next_by_subj": f"inferflux.tok.*.{request_id}.head"})
        event = _event_of(head)
    if head is not None and isinstance(event, Accepted):
        # Should two edges have accepted the same id at once, the first one's journal is the one that counts.
        edge = parse_journal(head.subject).edge
        starts = [each for each in (first, head) if each is not None and parse_journal(each.subject).edge == edge]
        return Found(edge, starts[0].seq, event)
    mark = await _get(connection, {"last_by_subj": f"inferflux.tok.*.{request_id}.run"})
    event = _event_of(mark)
    return Unreadable(event.reason if isinstance(event, Cancelled) else None)


async def _get(connection: Connection, query: dict[str, object]) -> Record | None:
    return await get_record(connection, STREAM_TOKENS, query, give_up_s=_GIVE_UP_S)


def _event_of(record: Record | None) -> Event | None:
    return _decode(record.payload) if record is not None else None


def _decode(payload: bytes) -> Event | None:
    try:
        return decode_event(payload)
    except CodecError:
        return None
