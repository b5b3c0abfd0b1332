"""Messages for people and tools to see: those that are stored, those that come, and the steps of requests.

Role inspector-full; inspector for the steps, and for how many messages there are. Changes nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.inspection import Target
from broker.records import Record, get_record
from broker.subjects import EVENTS_ALL, STREAM_BLOBS, STREAM_DLQ, STREAM_REQUESTS, STREAM_TOKENS, is_valid_id

# Messages of these are heard as they are published: they may be gone again before anybody reads the stream.
_HEARD = (STREAM_REQUESTS, STREAM_TOKENS, STREAM_BLOBS, STREAM_DLQ)
_POLL_EVERY_S = 0.25

# Waits for the next step of a request, a line of JSON.
NextLine = Callable[[], Awaitable[bytes]]


class Seen(NamedTuple):
    """A message. `seq` is None when it was heard and not read; `at` is Unix time, of the broker when it was read."""

    subject: str
    seq: int | None
    at: float
    headers: Mapping[str, str]
    payload: bytes


async def count_subjects(connection: Connection, target: Target) -> dict[str, int]:
    """Messages by subject, which needs no right to read them. Raises BrokerError."""
    counts: dict[str, int] = {}
    while True:
        body = {"subjects_filter": target.filter, "offset": len(counts)}
        info = await connection.api(f"STREAM.INFO.{target.stream}", body)
        page = info["state"].get("subjects") or {}
        counts |= page
        if not page or len(counts) >= info.get("total", 0):
            return dict(sorted(counts.items()))


async def last_messages(connection: Connection, target: Target, count: int) -> list[Seen]:
    """The latest `count` stored ones, oldest first. Raises BrokerError."""
    state = (await connection.api(f"STREAM.INFO.{target.stream}"))["state"]
    found: list[Record] = []
    end, width = state["last_seq"], max(count, 1)
    while end >= state["first_seq"] and len(found) < count and end > 0:
        start = max(state["first_seq"], end - width + 1)
        found = [*await _between(connection, target, start, end), *found]
        end, width = start - 1, 4 * width
    return [_seen(record) for record in found[-count:]] if count else []


async def follow(connection: Connection, target: Target, count: int) -> AsyncIterator[Seen]:
    """The latest `count`, then those that come, for ever. Raises BrokerError."""
    if target.stream not in _HEARD:
        async for seen in _poll(connection, target, count):
            yield seen
        return
    async with _hearing(connection, target.subjects) as heard:
        stored = await last_messages(connection, target, count)
        for seen in stored:
            yield seen
        # What came while the stored ones were read is among them already, or is new.
        known = {(seen.subject, seen.payload) for seen in stored}
        num_early = heard.qsize()
        while True:
            seen = await heard.get()
            num_early -= 1
            if num_early < 0 or (seen.subject, seen.payload) not in known:
                yield seen


@asynccontextmanager
async def transitions(
    connection: Connection, request_id: str | None = None
) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Steps of requests, all or those of one; the function waits for the next line. Raises ValueError on a bad id."""
    if request_id is not None and not is_valid_id(request_id):
        raise ValueError(f"not a request id: {request_id!r}")
    subject = EVENTS_ALL if request_id is None else f"inferflux.evt.{request_id}.*"
    async with _hearing(connection, [subject]) as heard:

        async def next_line() -> bytes:
            return (await heard.get()).payload

        yield next_line


@asynccontextmanager
async def _hearing(connection: Connection, subjects: list[str]) -> AsyncIterator[asyncio.Queue[Seen]]:
    heard: asyncio.Queue[Seen] = asyncio.Queue()

    async def take(message: Msg) -> None:
        heard.put_nowait(Seen(message.subject, None, time.time(), message.headers or {}, message.data))

    subscriptions = [await connection.subscribe(subject, take) for subject in subjects]
    try:
        yield heard
    finally:
        for subscription in subscriptions:
            await subscription.unsubscribe()


async def _poll(connection: Connection, target: Target, count: int) -> AsyncIterator[Seen]:
    state = (await connection.api(f"STREAM.INFO.{target.stream}"))["state"]
    stored = await last_messages(connection, target, count)
    for seen in stored:
        yield seen
    last = max([state["last_seq"], *(seen.seq or 0 for seen in stored)])
    while True:
        record = await get_record(connection, target.stream, {"seq": last + 1, "next_by_subj": target.filter})
        if record is None:
            await asyncio.sleep(_POLL_EVERY_S)
            continue
        last = record.seq
        yield _seen(record)


async def _between(connection: Connection, target: Target, start: int, end: int) -> list[Record]:
    found: list[Record] = []
    while start <= end:
        record = await get_record(connection, target.stream, {"seq": start, "next_by_subj": target.filter})
        if record is None or record.seq > end:
            break
        found.append(record)
        start = record.seq + 1
    return found


def _seen(record: Record) -> Seen:
    return Seen(record.subject, record.seq, record.stored_at, record.headers, record.payload)
