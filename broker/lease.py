"""A delivered request with its duties: renew it while working, settle it at the end, or let it go to another worker."""

import asyncio
import logging
import time
from collections.abc import Mapping

from broker.bodies import read_body
from broker.connection import Connection
from broker.errors import BrokerTimeout, BrokerUnavailable, NoResponders
from broker.headers import EDGE, REQUEST_ID, RequestRef
from broker.specs import ACK_WAIT_S
from broker.subjects import is_valid_id, parse_delivery, parse_request
from schemas.codec import CodecError, decode_request
from schemas.requests import GenerateRequest, PriorityClass

_log = logging.getLogger("inferflux.broker.lease")

_RENEW_S = ACK_WAIT_S / 3
_RETRY_S = 0.2
_SETTLE_S = 10.0


class Lease:
    """One delivery of one request. Settled by `ack`, `nak` or `term`; left alone it is delivered again after ack_wait.

    Whether this worker still owns the request is not known here but by its Claim: renew and settle only after a
    conditional write of the claim was accepted. `delay_s`: given back, and delivered again only after this long.
    `stored_ns`: when it came into the queue, Unix time by the broker's clock.
    """

    def __init__(
        self, connection: Connection, subject: str, ack_subject: str, payload: bytes, headers: Mapping[str, str] | None
    ) -> None:
        self._connection = connection
        self.subject = subject
        self.ack_subject = ack_subject
        self.payload = payload
        self.headers: Mapping[str, str] = headers or {}
        name = parse_request(subject)
        self.model: str = name.model
        self.priority: PriorityClass = name.priority
        delivery = parse_delivery(ack_subject)
        self.stream_seq = delivery.stream_seq
        self.num_delivered = delivery.num_delivered
        self.stored_ns = delivery.stored_ns
        self.delivered_at = time.monotonic()
        self.delay_s = 0.0
        self._renewed_at = self.delivered_at

    @property
    def is_overdue(self) -> bool:
        """More than ack_wait since the last renewal (the process was stopped): somebody else may have it by now."""
        return time.monotonic() - self._renewed_at > ACK_WAIT_S

    @property
    def needs_renewal(self) -> bool:
        """A third of ack_wait has gone since the last renewal."""
        return time.monotonic() - self._renewed_at >= _RENEW_S

    def ref(self) -> RequestRef:
        """Journal of the request, from the headers. Raises CodecError: a message published by hand may have none."""
        return _checked(RequestRef(self.headers.get(EDGE, ""), self.headers.get(REQUEST_ID, "")))

    async def body(self) -> bytes:
        """The request's body, fetched if it was claim-checked. Raises CodecError, BlobMissing, BrokerUnavailable."""
        return await read_body(self._connection, self.headers, self.payload)

    async def request(self) -> GenerateRequest:
        """The decoded request. Raises as `body` does."""
        request = decode_request(await self.body())
        _checked(RequestRef(request.edge, request.request_id))
        return request

    async def renew(self) -> None:
        """Keep the delivery for another ack_wait. Unacked."""
        if self._connection.is_connected:
            await self._connection.publish(self.ack_subject, b"+WPI")
            self._renewed_at = time.monotonic()

    async def ack(self) -> None:
        """Done: remove the request from the queue. Retried until confirmed; idempotent. Raises BrokerUnavailable."""
        await self._settle(b"+ACK")

    async def nak(self, delay_s: float | None = None) -> None:
        """Give it back, to be delivered again at once or after `delay_s`. Unacked; ack_wait covers a loss."""
        await self._connection.wait_connected(_SETTLE_S)
        self.delay_s = delay_s or 0.0
        delay = b"" if delay_s is None else b' {"delay": %d}' % int(delay_s * 1e9)
        await self._connection.publish(self.ack_subject, b"-NAK" + delay)

    async def term(self) -> None:
        """Remove it without an answer: nobody can ever read it. Retried as `ack` is."""
        await self._settle(b"+TERM")

    async def _settle(self, verb: bytes) -> None:
        deadline = time.monotonic() + _SETTLE_S
        while True:
            try:
                await self._connection.request(self.ack_subject, verb, 1.0)
                return
            except (NoResponders, BrokerTimeout) as error:
                # Nobody may mean that the consumer has no leader just now, as well as that there is none any more.
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"the queue does not confirm: {error}") from error
            await asyncio.sleep(_RETRY_S)
            await self._connection.wait_connected(max(0.0, deadline - time.monotonic()))


def _checked(ref: RequestRef) -> RequestRef:
    for name in ref:
        if not is_valid_id(name):
            raise CodecError(f"not a valid id: {name!r}")
    return ref
