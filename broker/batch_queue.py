"""An edge's side of offline batches: take lines, write what became of them."""

import asyncio
import contextlib
import json
import logging
from itertools import count

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.connection import Connection
from broker.delivered import Delivered
from broker.errors import ApiError, WrongSequence
from broker.inbox import status
from broker.outcomes import Expect
from broker.subjects import BATCH_CONSUMER, STREAM_BATCH, parse_batch, result_subject
from schemas.batch import BatchLine, BatchResult, decode_line, encode_result

_log = logging.getLogger("inferflux.broker.batch_queue")

# A process that leaves waits for the end of its pull.
_EXPIRES_S = 1.0
_ANSWER_S = 2.0
_NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_BATCH}.{BATCH_CONSUMER}"
_ASK = json.dumps({"batch": 1, "expires": int(_EXPIRES_S * 1e9)}).encode()


class BatchLease(Delivered):
    """A line of a batch that this edge works at. `tenant` and `model` are those of its subject, which is guarded."""

    def __init__(self, connection: Connection, message: Msg) -> None:
        super().__init__(connection, message.reply)
        self.tenant, self.model = parse_batch(message.subject)
        self._payload = message.data

    @property
    def key(self) -> str:
        """Names this line for ever, also when the stream is made anew and counts from 1 again."""
        return f"{STREAM_BATCH}.{self.stream_seq}.{self.stored_ns}"

    def line(self) -> BatchLine:
        """Raises CodecError."""
        return decode_line(self._payload)


class BatchQueue:
    """Used by one edge, from its loop; one line at a time is asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._tokens = count()
        self._asked = ""
        self._answer: asyncio.Future[BatchLease | None] | None = None

    async def start(self) -> None:
        """Be able to take lines."""
        self._inbox = self._connection.raw.new_inbox()
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)

    async def close(self) -> None:
        """Only when nothing is asked for: what is on its way would wait for ack_wait."""
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()
            self._subscription = None

    async def next(self) -> BatchLease | None:
        """The next line, waited for a second. Raises ApiError: the queue is not there, or cannot say."""
        assert self._subscription is not None, "not started"
        self._asked = f"{self._inbox}.{next(self._tokens)}"
        self._answer = asyncio.get_running_loop().create_future()
        await self._connection.publish(_NEXT, _ASK, reply=self._asked)
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._answer
        except TimeoutError:
            return None
        finally:
            self._answer = None

    async def _on_message(self, message: Msg) -> None:
        is_awaited = self._answer is not None and not self._answer.done()
        if message.reply:
            try:
                lease = BatchLease(self._connection, message)
            except ValueError as error:
                _log.warning("a line of a batch is dropped: %s", error)
                await Delivered(self._connection, message.reply).term()
                return
            if is_awaited and self._answer is not None:
                self._answer.set_result(lease)
            else:
                await lease.nak()
            return
        # Only the server's own messages carry our subject.
        code = status(message)
        if not is_awaited or self._answer is None or message.subject != self._asked or code is None or code == "100":
            return
        if code in ("404", "408"):
            self._answer.set_result(None)
        else:
            self._answer.set_exception(ApiError(int(code), 0, (message.headers or {}).get("Description", "")))

    async def publish_result(self, tenant: str, result: BatchResult) -> None:
        """Store what became of a line, once: what is there already stays. Raises StreamFull, BrokerUnavailable."""
        with contextlib.suppress(WrongSequence):  # another edge has, or we have and the answer was lost
            await self._connection.publish_acked(
                result_subject(tenant, result.job, result.index),
                encode_result(result),
                msg_id=result.request_id,
                expect=Expect(0),
            )
