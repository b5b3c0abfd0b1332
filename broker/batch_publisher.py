"""A tenant's side of offline batches: publish lines, read what became of them. Role batch of that tenant."""

from broker.connection import Connection
from broker.errors import ApiError
from broker.inbox import status
from broker.outcomes import PubAck
from broker.subjects import STREAM_RESULTS, ResultEnd, batch_subject, result_subject
from schemas.batch import BatchLine, BatchResult, decode_result, encode_line


class BatchPublisher:
    """Needs nothing but the broker: lines wait there until an edge has time for them."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant

    async def publish(self, line: BatchLine) -> PubAck:
        """Queue a line; again within two minutes is harmless, and later its first result stands.

        Raises ValueError for a body that names no model, CodecError, StreamFull, PayloadTooLarge, BrokerUnavailable.
        """
        if not line.model:
            raise ValueError(f"line {line.index} of {line.job} names no model")
        subject = batch_subject(self._tenant, line.model)
        # By its tenant as well: message ids are those of the whole stream.
        msg_id = f"{subject}.{line.job}.{line.index}"
        return await self._connection.publish_acked(subject, encode_line(line), msg_id=msg_id)

    async def result(self, job: str, index: int) -> BatchResult | None:
        """What became of a line; None while nobody knows. Raises NoResponders, BrokerTimeout, CodecError, ApiError."""
        for end in ResultEnd:
            if (found := await self._result(result_subject(self._tenant, job, index, end))) is not None:
                return found
        return None

    async def _result(self, subject: str) -> BatchResult | None:
        answer = await self._connection.request(f"$JS.API.DIRECT.GET.{STREAM_RESULTS}.{subject}", b"{}")
        match status(answer):
            case None:
                return decode_result(answer.data)
            case "404":
                return None
            case code:
                raise ApiError(int(code), 0, (answer.headers or {}).get("Description", ""))
