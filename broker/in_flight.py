"""Which requests there are now, over all edges: what the queue holds, with what the journals say of each.

A request leaves the queue when its end is stored and acknowledged, so nothing that runs or waits is missing.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from broker.connection import Connection
from broker.headers import DEADLINE, EDGE, REQUEST_ID, TENANT
from broker.records import Record, get_record, last_records
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, encode_token, is_valid_id, journal, parse_request
from broker.takeover import decode_record
from schemas.events import Accepted, Advanced, Cancelled, Delta, Event, Failed, Finished, Started
from schemas.requests import PriorityClass

_GIVE_UP_S = 2.0


class Queued(NamedTuple):
    """A request as its message says. Times are Unix seconds; `deadline` 0 when the message has none."""

    seq: int
    request_id: str
    model: str
    priority: PriorityClass
    tenant: str
    edge: str
    queued_at: float
    deadline: float


class InFlight(NamedTuple):
    """The same with its journal: whose it is, and who runs it (None: it waits).

    `num_tokens` is None while a prompt is computed again after tokens were there, and when the journal says nothing.
    """

    queued: Queued
    accepted: Accepted | None
    worker: str | None
    num_tokens: int | None
    is_over: bool


async def queued(
    connection: Connection, model: str | None = None, priority: PriorityClass | None = None
) -> AsyncIterator[Queued]:
    """All requests in the queue in their order, those that run included; of one model and class, where given.

    One question to the broker each: the caller stops when it has enough. Raises BrokerUnavailable.
    """
    subject = f"inferflux.req.{encode_token(model) if model else '*'}.{priority or '*'}.*"
    seq = 1
    while True:
        query = {"seq": seq, "next_by_subj": subject}
        record = await get_record(connection, STREAM_REQUESTS, query, give_up_s=_GIVE_UP_S)
        if record is None:
            return
        seq = record.seq + 1
        if (found := _parse(record)) is not None:
            yield found


async def in_flight(connection: Connection, requests: Sequence[Queued]) -> list[InFlight]:
    """What the journals say of these. Raises BrokerError."""
    names = [journal(each.edge, each.request_id) for each in requests]
    records = await last_records(
        connection, STREAM_TOKENS, [subject for name in names for subject in (name.head, name.run, name.ev)]
    )

    def last(subject: str) -> Event | None:
        record = records.get(subject)
        return decode_record(record) if record is not None else None

    return [
        _described(each, last(name.head), last(name.run), last(name.ev))
        for each, name in zip(requests, names, strict=True)
    ]


def _described(request: Queued, head: Event | None, run: Event | None, ev: Event | None) -> InFlight:
    accepted = head if isinstance(head, Accepted) else None
    started = run if isinstance(run, Started) else None
    is_over = isinstance(run, Cancelled | Failed)
    num_tokens: int | None = None
    match ev:
        case None:
            num_tokens = 0
        case Delta():
            num_tokens = ev.index + len(ev.token_ids)
        case Advanced():
            num_tokens = ev.num_tokens
        case Finished():
            num_tokens = ev.usage.completion_tokens
            is_over = is_over or (started is not None and ev.run == started.run)
        case Failed():
            is_over = is_over or (started is not None and ev.run == started.run)
    return InFlight(request, accepted, started.worker if started is not None else None, num_tokens, is_over)


def _parse(record: Record) -> Queued | None:
    """None for a message that is no request of ours: a worker refuses it."""
    headers = record.headers
    request_id, edge = headers.get(REQUEST_ID, ""), headers.get(EDGE, "")
    if not (is_valid_id(request_id) and is_valid_id(edge)):
        return None
    try:
        name = parse_request(record.subject)
        deadline = int(headers.get(DEADLINE, "0")) / 1000
    except ValueError:
        return None
    tenant = headers.get(TENANT, "")
    return Queued(record.seq, request_id, name.model, name.priority, tenant, edge, record.stored_at, deadline)
