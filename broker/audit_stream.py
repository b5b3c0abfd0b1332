"""The stream of audit records: appended by one writer to its own subject, read in order, changed by nobody."""

from broker.connection import Connection
from broker.outcomes import Expect
from broker.records import Record, get_record
from broker.subjects import AUDIT_ALL, STREAM_AUDIT, audit_subject


class AuditStream:
    """Role edge. A message is a block of records; what stands in it is the writer's business."""

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
