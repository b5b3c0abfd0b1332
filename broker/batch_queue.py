"""An edge's side of offline batches: take lines, lane by lane, and write what became of them."""

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
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
from broker.subjects import BATCH_LANES, STREAM_BATCH, ResultEnd, batch_consumer, parse_batch_lane, result_subject
from schemas.batch import BatchResult, encode_result

__all__ = ["BatchLease", "BatchQueue"]
_log = logging.getLogger("inferflux.broker.batch_queue")

_WAIT_S = 30.0
# After the server's own end of a pull: then its answer is lost.
_GRACE_S = 2.0
_CONNECT_S = 60.0


class _Pull:
    """Lines asked for that have not all come. `ends_at`: monotonic; later than that it is lost."""

    def __init__(self, lane: "_Lane", most: int, limit_s: float) -> None:
        self.lane = lane
        self.num_left = most
        self.ends_at = time.monotonic() + limit_s


class _Lane:
    """What of one lane is here and not yet taken, and what it is asked for. `news`: one of both has changed."""

    def __init__(self) -> None:
        self.ready: deque[BatchLease] = deque()
        self.pull: _Pull | None = None
        self.error: ApiError | None = None
        self.news = asyncio.Event()


class BatchQueue:
    """Used by one edge, from its loop; each lane by one task.

    `wait_s` is how long the server keeps the question for a line. `on_dropped` hears of what no subject of ours is on.
    """

    def __init__(
        self, connection: Connection, *, wait_s: float = _WAIT_S, on_dropped: Callable[[str], None] = lambda _: None
    ) -> None:
        self._connection = connection
        self._wait_s = wait_s
        self._on_dropped = on_dropped
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._tokens = count()
        self._pulls: dict[str, _Pull] = {}
        self._lanes = [_Lane() for _ in range(BATCH_LANES)]

    async def start(self) -> None:
        """Be able to take lines."""
        self._inbox = self._connection.raw.new_inbox()
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        self._connection.on_reconnect(self._forget)

    async def close(self) -> None:
        """Ask no more; what is here and not taken, or on its way, is given back."""
        self._connection.remove_on_reconnect(self._forget)
        await self._forget()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                if self._connection.is_connected:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                else:
                    await subscription.unsubscribe()
        if self._connection.is_connected:
            for lane in range(BATCH_LANES):
                await self.give_back(lane)

    async def next(self, lane: int, most: int = 1) -> BatchLease | None:
        """The next line of a lane; None when there was none for a while, or the connection was lost.

        With `most` above 1 so many are asked for when none is here, and none is waited for. Raises ApiError: the queue
        is not there, or cannot say.
        """
        assert self._subscription is not None, "not started"
        state = self._lanes[lane]
        if not state.ready and state.pull is None:
            await self._ask(lane, state, most)
        while not state.ready and state.pull is not None:
            state.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(state.pull.ends_at - time.monotonic()):
                    await state.news.wait()
            if state.pull is not None and time.monotonic() >= state.pull.ends_at:
                self._end(state.pull)
        if state.error is not None:
            error, state.error = state.error, None
            raise error
        return state.ready.popleft() if state.ready else None

    async def give_back(self, lane: int) -> None:
        """Let others have what is here of a lane and not taken."""
        ready = self._lanes[lane].ready
        while ready:
            await ready.popleft().nak()

    async def _ask(self, lane: int, state: _Lane, most: int) -> None:
        if not await self._connection.wait_connected(_CONNECT_S):
            return
        is_waiting = most == 1
        question = {"expires": int(self._wait_s * 1e9)} if is_waiting else {"no_wait": True}
        pull = state.pull = _Pull(state, most, _GRACE_S + (self._wait_s if is_waiting else 0.0))
        token = str(next(self._tokens))
        self._pulls[token] = pull
        await self._connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_BATCH}.{batch_consumer(lane)}",
            json.dumps({"batch": most, **question}).encode(),
            reply=f"{self._inbox}.{token}",
        )

    def _end(self, pull: _Pull) -> None:
        self._pulls = {token: each for token, each in self._pulls.items() if each is not pull}
        if pull.lane.pull is pull:
            pull.lane.pull = None
        pull.lane.news.set()

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
        for pull in list(self._pulls.values()):
            self._end(pull)

    async def _on_message(self, message: Msg) -> None:
        if message.reply:
            await self._take(message)
            return
        # Only the server's own messages carry our subject.
        pull = self._pulls.get(message.subject.rpartition(".")[2])
        code = status(message)
        if pull is None or code is None or code == "100":
            return
        if code not in ("404", "408"):
            pull.lane.error = ApiError(int(code), 0, (message.headers or {}).get("Description", ""))
        self._end(pull)

    async def _take(self, message: Msg) -> None:
        lane = self._lanes[parse_batch_lane(message.subject)]
        if lane.pull is not None:
            lane.pull.num_left -= 1
            if lane.pull.num_left <= 0:
                self._end(lane.pull)
        try:
            lease = BatchLease(self._connection, message)
        except ValueError as error:
            await self._drop(message, str(error))
            return
        if self._subscription is None:
            await lease.nak()
            return
        lane.ready.append(lease)
        lane.news.set()

    async def _drop(self, message: Msg, reason: str) -> None:
        _log.warning("a line of a batch is dropped: %s", reason)
        self._on_dropped(reason)
        with contextlib.suppress(BrokerError):
            await Delivered(self._connection, message.reply).term()
