"""The stream of audit records: appended by one writer to its own subject, read in order, changed by nobody."""

import json
from datetime import UTC, datetime

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.errors import ApiError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.inbox import status
from broker.outcomes import Expect
from broker.records import Record, get_record
from broker.subjects import AUDIT_ALL, STREAM_AUDIT, audit_subject

_PAGE = 64
_PAGE_BYTES = 2 << 20


class AuditStream:
    """A message is a block of records; what is in it is its writer's business. Role edge; topology reads, and trims."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def is_reachable(self) -> bool:
        return self._connection.is_connected

    async def append(self, writer: str, block: bytes, *, behind: int, give_up_s: float) -> int:
        """Store a block behind the writer's last one, at sequence `behind` (0: there is none); its own sequence.

        Raises WrongSequence (another block is last), StreamFull, PayloadTooLarge, Refused: it is not stored. Raises
        BrokerUnavailable: it may be.
        """
        subject = audit_subject(writer)
        ack = await self._connection.publish_acked(subject, block, expect=Expect(behind), give_up_s=give_up_s)
        return ack.seq

    async def last(self, writer: str | None = None, *, give_up_s: float = 10.0) -> Record | None:
        """The last block of a writer, or of all of them, from the leader. Raises BrokerUnavailable."""
        subject = AUDIT_ALL if writer is None else audit_subject(writer)
        return await get_record(self._connection, STREAM_AUDIT, {"last_by_subj": subject}, give_up_s)

    async def bounds(self) -> tuple[int, int]:
        """First and last sequence, by the leader; an empty stream's last is one below its first.

        Raises BrokerUnavailable.
        """
        try:
            state = (await self._connection.api(f"STREAM.INFO.{STREAM_AUDIT}"))["state"]
        except (ApiError, BrokerTimeout, NoResponders) as error:
            raise BrokerUnavailable(f"the audit stream cannot be read: {error}") from error
        return max(1, int(state["first_seq"])), int(state["last_seq"])

    async def since(self, unix_time: float) -> int | None:
        """The sequence of the first block that was stored at that time or later; None when there is none."""
        start = datetime.fromtimestamp(unix_time, UTC).isoformat()
        answers = await self._collect({"start_time": start, "batch": 1, "next_by_subj": AUDIT_ALL})
        return answers[0].seq if answers else None

    async def read(self, start: int, through: int, writer: str | None = None, *, limit: int = _PAGE) -> list[Record]:
        """A page of blocks in order, from sequence `start` up to `through`; empty: there are none.

        Raises BrokerUnavailable.
        """
        subject = AUDIT_ALL if writer is None else audit_subject(writer)
        query = {"seq": start, "batch": limit, "max_bytes": _PAGE_BYTES, "next_by_subj": subject}
        page = [record for record in await self._collect(query) if record.seq <= through]
        if page or start > through:
            return page
        # Any replica may have answered, also one that lacks the newest; the leader knows.
        record = await get_record(self._connection, STREAM_AUDIT, {"seq": start, "next_by_subj": subject})
        return [record] if record is not None and record.seq <= through else []

    async def trim(self, before: int) -> int:
        """Remove the blocks before a sequence for good; how many there were. Role topology, and no other.

        Raises ApiError, BrokerTimeout, NoResponders.
        """
        answer = await self._connection.api(f"STREAM.PURGE.{STREAM_AUDIT}", {"seq": before})
        return int(answer["purged"])

    async def _collect(self, query: dict[str, object]) -> list[Record]:
        try:
            *messages, end = await self._connection.collect(
                f"$JS.API.DIRECT.GET.{STREAM_AUDIT}", json.dumps(query).encode()
            )
        except (BrokerTimeout, NoResponders) as error:
            raise BrokerUnavailable(f"the audit stream cannot be read: {error}") from error
        if status(end) not in ("204", "404"):
            raise BrokerUnavailable(f"the audit stream cannot be read: {(end.headers or {}).get('Description', '')}")
        return [_to_record(message) for message in messages]


def _to_record(message: Msg) -> Record:
    headers = message.headers or {}
    stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
    return Record(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, stored_at)
