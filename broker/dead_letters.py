"""Requests that were given up: put aside with all that is needed to look into them and to queue them again."""

import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from broker.bodies import read_body
from broker.connection import Connection
from broker.errors import ApiError, BlobMissing, BrokerError, WrongSequence
from broker.headers import ACCEPTED, ATTEMPTS, BLOB, PRIORITY, REASON, TENANT
from broker.lease import Lease
from broker.outcomes import Expect
from broker.records import Record, get_record
from broker.subjects import DLQ_ALL, STREAM_DLQ, any_dlq_subject, dlq_subject, parse_dlq
from schemas.codec import CodecError, decode_request
from schemas.events import Accepted
from schemas.fold import Fold
from schemas.requests import GenerateRequest

_log = logging.getLogger("inferflux.broker.dead_letters")

_NO_MESSAGE = 10057
# Room for headers under the server's limit, which counts them.
_HEADERS_BYTES = 64 * 1024


class DeadLetter(NamedTuple):
    """A request that was given up. `headers` are those of its message and ours; `at` is Unix time."""

    request_id: str
    model: str
    seq: int
    at: float
    headers: dict[str, str]
    payload: bytes

    @property
    def reason(self) -> str:
        return self.headers.get(REASON, "")

    @property
    def attempts(self) -> int | None:
        """How many workers ended with it, one after the other."""
        text = self.headers.get(ATTEMPTS, "")
        return int(text) if text.isdigit() else None

    @property
    def priority(self) -> str:
        return self.headers.get(PRIORITY, "")

    @property
    def tenant(self) -> str:
        return self.headers.get(TENANT, "")

    @property
    def accepted(self) -> Accepted | None:
        """What its edge had promised, without the idempotency key; None when the journal did not tell any more."""
        try:
            return Accepted(**json.loads(self.headers[ACCEPTED]))
        except (KeyError, ValueError, TypeError):
            return None


async def bury(
    connection: Connection,
    lease: Lease,
    request_id: str,
    reason: str,
    fold: Fold,
    give_up_s: float,
    *,
    keeps_body: bool = True,
) -> None:
    """Put a delivered request aside; `fold` is its journal. Role worker. Raises BrokerUnavailable, StreamFull.

    Several workers may try; it is kept once. Its journal and its delivery are the caller's.
    """
    headers = {**_own(lease.headers), REASON: reason, ATTEMPTS: str(fold.claims_without_progress)}
    if fold.accepted is not None:
        promised = fold.accepted._replace(body_hash="", idempotency_key=None)
        headers[ACCEPTED] = json.dumps(promised._asdict())
    payload = lease.payload
    if not keeps_body:
        headers.pop(BLOB, None)
        payload = b""
    elif BLOB in headers:
        body = await _own_body(connection, lease)
        if body is not None:
            del headers[BLOB]
            payload = body
    subject = dlq_subject(lease.model, request_id)
    with contextlib.suppress(WrongSequence):  # another worker has, or we have and the answer was lost
        await connection.publish_acked(subject, payload, headers=headers, expect=Expect(0), give_up_s=give_up_s)
    _log.error("request %s is put aside: %s", request_id, reason)


async def _own_body(connection: Connection, lease: Lease) -> bytes | None:
    """A claim-checked body, which goes with its request's end, to be kept in the letter itself; None if it cannot."""
    try:
        body = await lease.body()
    except (BrokerError, CodecError) as error:
        _log.warning("a dead letter is kept without its body: %s", error)
        return None
    return body if len(body) <= connection.max_payload - _HEADERS_BYTES else None


class DeadLetters:
    """Reads what was put aside, from the leader, and removes it. Roles: inspector-full to look, edge to remove."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def all(self) -> AsyncIterator[DeadLetter]:
        """Oldest first, one by one: each brings its body. Raises BrokerUnavailable."""
        seq = 1
        while (record := await self._get({"seq": seq, "next_by_subj": DLQ_ALL})) is not None:
            if (letter := _read(record)) is not None:
                yield letter
            seq = record.seq + 1

    async def find(self, request_id: str) -> DeadLetter | None:
        """None when no such request was put aside, or it is not there any more.

        Raises BrokerUnavailable, ValueError on what is no id.
        """
        record = await self._get({"last_by_subj": any_dlq_subject(request_id)})
        return _read(record) if record is not None else None

    async def request(self, letter: DeadLetter) -> GenerateRequest:
        """The request itself. Raises BlobMissing when its body was not kept, CodecError when it never was one."""
        if BLOB not in letter.headers and not letter.payload:
            raise BlobMissing(f"the body of {letter.request_id} was not kept")
        try:
            return decode_request(await read_body(self._connection, letter.headers, letter.payload))
        except BlobMissing as error:
            raise BlobMissing(f"the body of {letter.request_id} was too large to be kept: {error}") from error

    async def drop(self, letter: DeadLetter) -> None:
        """Remove it; harmless when it is gone. Raises ApiError, BrokerTimeout, NoResponders."""
        try:
            await self._connection.api(f"STREAM.MSG.DELETE.{STREAM_DLQ}", {"seq": letter.seq})
        except ApiError as error:
            if error.err_code != _NO_MESSAGE:
                raise

    async def _get(self, query: dict[str, object]) -> Record | None:
        return await get_record(self._connection, STREAM_DLQ, query)


async def count_dead_letters(connection: Connection) -> dict[str, int]:
    """How many there are of each model. Raises BrokerError."""
    info = await connection.api(f"STREAM.INFO.{STREAM_DLQ}", {"subjects_filter": DLQ_ALL})
    counts: dict[str, int] = {}
    for subject, number in (info["state"].get("subjects") or {}).items():
        with contextlib.suppress(ValueError):  # none of ours
            model = parse_dlq(subject).model
            counts[model] = counts.get(model, 0) + number
    return counts


def _read(record: Record) -> DeadLetter | None:
    """None for what is not one of ours."""
    try:
        name = parse_dlq(record.subject)
    except ValueError as error:
        _log.warning("dead letter %d: %s", record.seq, error)
        return None
    headers = _own(record.headers)
    return DeadLetter(name.request_id, name.model, record.seq, record.stored_at, headers, record.payload)


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """Without the server's: conditions and message ids of the first publish."""
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}
