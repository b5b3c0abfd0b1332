"""Read stored records: the last one of a subject from the leader, or all of a filter in one batch."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.errors import ApiError, BrokerError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.headers import parse_headers
from broker.inbox import status

_NO_MESSAGE = 10037
_BATCH = 1024
_MAX_SUBJECTS = 512
_RETRY_S = 0.05


class Record(NamedTuple):
    """A stored message. Only `get_record` brings `stored_at`, Unix time by the broker's clock, and `headers`."""

    subject: str
    seq: int
    payload: bytes
    stored_at: float = 0.0
    headers: Mapping[str, str] = MappingProxyType({})


async def get_record(
    connection: Connection, stream: str, query: dict[str, Any], give_up_s: float = 10.0
) -> Record | None:
    """One record from the stream's leader, which has every acked write; None when there is none.

    `query` is `{"last_by_subj": …}` or `{"seq": …, "next_by_subj": …}`. Retries until the leader answers. Raises
    BrokerUnavailable.
    """
    deadline = time.monotonic() + give_up_s
    while True:
        try:
            message = (await connection.api(f"STREAM.MSG.GET.{stream}", query, timeout_s=1.0))["message"]
        except ApiError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            failure: BrokerError = error
        except (BrokerTimeout, NoResponders) as error:
            failure = error
        else:
            return Record(
                message["subject"],
                message["seq"],
                base64.b64decode(message.get("data", "")),
                datetime.fromisoformat(message["time"]).timestamp(),
                parse_headers(base64.b64decode(message.get("hdrs", ""))),
            )
        await _pause_or_give_up(connection, deadline, failure)


async def read_records(
    connection: Connection,
    stream: str,
    filter_subject: str,
    *,
    is_complete: Callable[[list[Record]], bool],
    give_up_s: float = 10.0,
) -> list[Record]:
    """All records under `filter_subject` in stream order, by direct get.

    Any replica may answer, even one that lacks the newest writes: read again until `is_complete` says so; what was
    read last is returned when it never does. Raises BrokerUnavailable.
    """
    deadline = time.monotonic() + give_up_s
    pause = 0.001
    while True:
        try:
            records = await _read_once(connection, stream, filter_subject)
        except (BrokerTimeout, NoResponders, ApiError) as error:
            await _pause_or_give_up(connection, deadline, error)
            continue
        if is_complete(records) or time.monotonic() > deadline:
            return records
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.1)


async def last_records(connection: Connection, stream: str, subjects: Sequence[str]) -> dict[str, Record]:
    """The last record of each of these subjects that has one, by direct get: a replica may lack the newest.

    Raises BrokerError; no retry.
    """
    records: dict[str, Record] = {}
    for start in range(0, len(subjects), _MAX_SUBJECTS):
        query = {"multi_last": list(subjects[start : start + _MAX_SUBJECTS])}
        *messages, end = await connection.collect(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode())
        if status(end) not in ("204", "404"):
            raise ApiError(int(status(end) or 0), 0, f"direct get: {(end.headers or {}).get('Description', '')}")
        records |= {record.subject: record for record in map(_to_record, messages)}
    return records


async def _read_once(connection: Connection, stream: str, filter_subject: str) -> list[Record]:
    records: list[Record] = []
    start = 1
    while True:
        query = {"seq": start, "batch": _BATCH, "next_by_subj": filter_subject}
        *messages, end = await connection.collect(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode())
        records += map(_to_record, messages)
        match status(end):
            case "404":
                return records
            case "204" if not messages or int((end.headers or {}).get("Nats-Num-Pending", "0")) == 0:
                return records
            case "204":
                start = records[-1].seq + 1
            case other:
                raise ApiError(int(other or 0), 0, f"direct get: {(end.headers or {}).get('Description', '')}")


def _to_record(message: Msg) -> Record:
    headers = message.headers or {}
    return Record(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data)


async def _pause_or_give_up(connection: Connection, deadline: float, failure: BrokerError) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise BrokerUnavailable(f"the stream cannot be read: {failure}") from failure
    await asyncio.sleep(min(_RETRY_S, left))
    await connection.wait_connected(max(0.0, deadline - time.monotonic()))
