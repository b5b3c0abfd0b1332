"""One delivery of a work queue: keep it, settle it, or give it back."""

import asyncio
import time

from broker.connection import Connection
from broker.errors import BrokerTimeout, BrokerUnavailable, NoResponders
from broker.specs import ACK_WAIT_S
from broker.subjects import parse_delivery

_RENEW_S = ACK_WAIT_S / 3
_RETRY_S = 0.2
_SETTLE_S = 10.0


class Delivered:
    """Left alone it is delivered again after ack_wait. `delay_s`: given back, and delivered again only after this long.

    `stored_ns`: when it came into the queue, Unix time by the broker's clock.
    """

    def __init__(self, connection: Connection, ack_subject: str) -> None:
        self._connection = connection
        self.ack_subject = ack_subject
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
