"""An edge's side of offline batches: take lines, lane by lane, and write what became of them."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from itertools import count

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.batch_lease import BatchLease
from broker.connection import Connection
from broker.delivered import Delivered
from broker.errors import ApiError, BrokerError, WrongSequence
from broker.inbox import status
from broker.outcomes import Expect
from broker.subjects import STREAM_BATCH, ResultEnd, batch_consumer, result_subject
from schemas.batch import BatchResult, encode_result

__all__ = ["BatchLease", "BatchQueue"]
_log = logging.getLogger("inferflux.broker.batch_queue")

_WAIT_S = 30.0
# After the server's own end of a pull: then its answer is lost.
_GRACE_S = 2.0
_CONNECT_S = 60.0


class _Pull:
    """One line asked for. What comes for a pull that is over goes back."""

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.answer: asyncio.Future[BatchLease | None] = asyncio.get_running_loop().create_future()

    def end(self, lease: BatchLease | None = None) -> bool:
        """False when it was over before."""
        if self.answer.done():
            return False
        self.answer.set_result(lease)
        return True


class BatchQueue:
    """Used by one edge, from its loop; of each lane one line at a time is asked for.

    `wait_s` is how long the server keeps the question for a line. `on_dropped` hears of what no subject of ours is on.
    """

    def __init__(
        self, connection: Connection, *, wait_s: float = _WAIT_S, on_dropped: Callable[[str], None] = lambda _: None
    ) -> None:
        self._connection = connection
        self._wait_s = wait_s
        self._on_dropped = on_dropped
        self._ask = json.dumps({"batch": 1, "expires": int(wait_s * 1e9)}).encode()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._tokens = count()
        self._pulls: dict[str, _Pull] = {}

    async def start(self) -> None:
        """Be able to take lines."""
        self._inbox = self._connection.raw.new_inbox()
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        self._connection.on_reconnect(self._forget)

    async def close(self) -> None:
        """Ask no more; what is on its way is given back."""
        self._connection.remove_on_reconnect(self._forget)
        await self._forget()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await subscription.drain()  # type: ignore[no-untyped-call]

    async def next(self, lane: int) -> BatchLease | None:
        """The next line of a lane; None when there was none for a while, or the connection was lost.

        Raises ApiError: the queue is not there, or cannot say.
        """
        assert self._subscription is not None, "not started"
        if not await self._connection.wait_connected(_CONNECT_S):
            return None
        token, pull = str(next(self._tokens)), _Pull(lane)
        self._pulls[token] = pull
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_BATCH}.{batch_consumer(lane)}"
            await self._connection.publish(subject, self._ask, reply=f"{self._inbox}.{token}")
            async with asyncio.timeout(self._wait_s + _GRACE_S):
                return await pull.answer
        except TimeoutError:
            return None
        finally:
            del self._pulls[token]

    async def publish_result(self, tenant: str, result: BatchResult) -> None:
        """Store what became of a line, once: what is there already stays.

        Raises StreamFull, PayloadTooLarge, BrokerUnavailable.
        """
        end = ResultEnd.FAILED if result.is_failed else ResultEnd.DONE
        any_end = result_subject(tenant, result.job, result.index, "*")
        with contextlib.suppress(WrongSequence):  # another edge has, or we have and the answer was lost
            await self._connection.publish_acked(
                result_subject(tenant, result.job, result.index, end),
                encode_result(result),
                msg_id=result.request_id,
                expect=Expect(0, any_end),
            )

    async def _forget(self) -> None:
        """The server has forgotten what it was asked."""
        for pull in self._pulls.values():
            pull.end()

    async def _on_message(self, message: Msg) -> None:
        if message.reply:
            await self._take(message)
            return
        # Only the server's own messages carry our subject.
        pull = self._pulls.get(message.subject.rpartition(".")[2])
        code = status(message)
        if pull is None or code is None or code == "100":
            return
        if code in ("404", "408"):
            pull.end()
        elif not pull.answer.done():
            pull.answer.set_exception(ApiError(int(code), 0, (message.headers or {}).get("Description", "")))

    async def _take(self, message: Msg) -> None:
        try:
            lease = BatchLease(self._connection, message)
        except ValueError as error:
            await self._drop(message, str(error))
            return
        if not any(pull.lane == lease.lane and pull.end(lease) for pull in self._pulls.values()):
            await lease.nak()

    async def _drop(self, message: Msg, reason: str) -> None:
        _log.warning("a line of a batch is dropped: %s", reason)
        self._on_dropped(reason)
        with contextlib.suppress(BrokerError):
            await Delivered(self._connection, message.reply).term()
