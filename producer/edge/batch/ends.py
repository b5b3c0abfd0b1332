"""How a line leaves this edge: its result is stored, or it comes again, or nobody can read it."""

import contextlib

import structlog

from broker.batch_lease import BatchLease
from broker.batch_queue import BatchQueue
from broker.errors import BrokerError, PayloadTooLarge
from producer.edge.audited import note_dropped_line
from producer.edge.batch.line import Answer, Line
from producer.edge.batch.pauses import delay_s
from producer.edge.errors import error_object
from producer.edge.ids import mint_request_id
from producer.edge.services import Services
from producer.metrics import LineOutcome
from schemas.batch import BatchResult
from schemas.errors import ErrorCode, ServingError

_log = structlog.stdlib.get_logger("inferflux.edge.batch")

# A line that we cannot handle, for whatever reason, is given up after so many deliveries.
_MAX_FAULTS = 5


class LineEnds:
    """Each settles the lease. Raise BrokerError: then it is still open, and comes again in any case."""

    def __init__(self, services: Services, queue: BatchQueue) -> None:
        self._services = services
        self._queue = queue

    async def store(self, line: Line, answer: Answer) -> None:
        """Store what became of a line, and let go of its call."""
        queued = line.line
        result = BatchResult(
            job=queued.job,
            index=queued.index,
            custom_id=queued.custom_id,
            request_id=answer.request_id,
            status_code=answer.status,
            body=answer.body,
        )
        is_stored = False
        try:
            await self._publish(line.lease, result)
            is_stored = True
        finally:
            line.let_go(answer, is_stored=is_stored)
        await line.lease.ack()

    async def refuse(self, lease: BatchLease, error: ServingError) -> None:
        """Of what is not known more than where its result belongs, and perhaps not even that."""
        address = lease.address()
        if address is None:
            await self.drop(lease, error.message)
            return
        result = BatchResult(
            **address.model_dump(), request_id=mint_request_id(), status_code=error.status, body=error_object(error)
        )
        await self._publish(lease, result)
        await lease.ack()

    async def fault(self, lease: BatchLease) -> None:
        """Something is wrong here: the line comes again, but not for ever."""
        if lease.num_delivered < _MAX_FAULTS or lease.address() is None:
            await self.put_off(lease, delay_s(lease.num_delivered), "fault")
            return
        with contextlib.suppress(BrokerError):  # then it comes once more
            await self.refuse(lease, ServingError(ErrorCode.INTERNAL, "The line could not be handled."))

    async def put_off(self, lease: BatchLease, delay_s: float, reason: str) -> None:
        """It comes again after that, here or at another edge."""
        _log.debug("line put off", seq=lease.stream_seq, delay_s=round(delay_s, 2), reason=reason)
        self._count(LineOutcome.PUT_OFF)
        await lease.nak(delay_s)

    async def give_back(self, lease: BatchLease) -> None:
        """Another edge may have it at once."""
        if self._services.connection.is_connected:
            await lease.nak()

    async def drop(self, lease: BatchLease, reason: str) -> None:
        self.note_dropped(lease.tenant, reason)
        await lease.term()

    def note_dropped(self, tenant: str, reason: str) -> None:
        _log.warning("line dropped", tenant=tenant, reason=reason)
        self._count(LineOutcome.DROPPED)
        note_dropped_line(self._services.audit, tenant, reason)

    async def _publish(self, lease: BatchLease, result: BatchResult) -> None:
        try:
            await self._queue.publish_result(lease.tenant, result)
        except PayloadTooLarge:
            error = ServingError(ErrorCode.PAYLOAD_TOO_LARGE, "The answer does not fit into one message.")
            result = result.model_copy(update={"status_code": error.status, "body": error_object(error)})
            await self._queue.publish_result(lease.tenant, result)
        self._count(LineOutcome.FAILED if result.is_failed else LineOutcome.DONE)

    def _count(self, outcome: LineOutcome) -> None:
        self._services.metrics.batch_lines.labels(str(outcome)).inc()
