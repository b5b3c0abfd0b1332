"""Deliveries whose worker has ended: found in the journals, given to others at once."""

import logging
from datetime import datetime

from broker.connection import Connection
from broker.reader import JournalReader, StartAt
from broker.records import get_record
from broker.subjects import CLAIMS_ALL, STREAM_REQUESTS, STREAM_TOKENS, parse_delivery
from broker.work_queue import WorkQueue
from schemas.codec import CodecError, decode_event
from schemas.events import Started

_log = logging.getLogger("inferflux.broker.orphans")

# What two clocks may differ by. Beyond that, leases run out by themselves.
_CLOCKS_S = 5.0


async def hand_back_orphans(connection: Connection, worker_id: str, started_at: float) -> int:
    """Give back every request that an ended worker still holds; returns how many. Role topology or edge.

    `started_at` is Unix time, of the worker. Harmless when it lives: whoever claims next fences it. Raises BrokerError.
    """
    since = await _oldest_open(connection)
    if since is None:
        return 0
    queue, num_handed_back = WorkQueue(connection), 0
    for ack_subject in await _held(connection, worker_id, max(since, started_at) - _CLOCKS_S):
        try:
            seq = parse_delivery(ack_subject).stream_seq
            # Without a message the request has ended, and only its journal is still there.
            if await get_record(connection, STREAM_REQUESTS, {"seq": seq}) is not None:
                await queue.hand_back(ack_subject)
                num_handed_back += 1
        except ValueError as error:
            _log.warning("claim of worker %s: %s", worker_id, error)
    return num_handed_back


async def _oldest_open(connection: Connection) -> float | None:
    """When the oldest request in the queue came, delivered or not; None when there is none."""
    state = (await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]
    return datetime.fromisoformat(state["first_ts"]).timestamp() if state["messages"] else None


async def _held(connection: Connection, worker_id: str, since: float) -> list[str]:
    """Ack subjects of the claims since then that are their worker's and the last word on their request's `.run`.

    Claims are later than their requests, so those before the oldest open request belong to ended ones.
    """
    held: dict[str, str] = {}

    def note(subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        held.pop(subject, None)
        try:
            event = decode_event(payload)
        except CodecError:
            return
        if isinstance(event, Started) and event.worker == worker_id:
            held[subject] = event.ack_subject

    reader = JournalReader(connection, STREAM_TOKENS, CLAIMS_ALL, note, start=StartAt.stored_since(since))
    try:
        await reader.start()
        await reader.caught_up()
    finally:
        await reader.close()
    return list(held.values())
