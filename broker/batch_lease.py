"""One delivery of the queue of lines, and its names."""

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.delivered import Delivered
from broker.subjects import STREAM_BATCH, parse_batch
from schemas.batch import BatchLine, BatchSubmission, LineAddress, decode_queued, read_address


class BatchLease(Delivered):
    """A line of a batch, or a submission, that this edge works at.

    `tenant` and `model` are those of its subject, which is guarded. Raises ValueError when the subject names none.
    """

    def __init__(self, connection: Connection, message: Msg) -> None:
        super().__init__(connection, message.reply)
        self.lane, self.tenant, self.model = parse_batch(message.subject)
        self._payload = message.data

    @property
    def key(self) -> str:
        """Names this line for ever, also when the stream is made anew and counts from 1 again."""
        return f"{STREAM_BATCH}.{self.stream_seq}.{self.stored_ns}"

    @property
    def size_bytes(self) -> int:
        return len(self._payload)

    def queued(self) -> BatchLine | BatchSubmission:
        """Raises CodecError."""
        return decode_queued(self._payload)

    def address(self) -> LineAddress | None:
        """Where the result of a line belongs that cannot be read; None when that cannot be read either."""
        return read_address(self._payload)
