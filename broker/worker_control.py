"""Control messages to workers over core NATS: is it alive, drain, was cancelled. Fast paths, never the truth.

What administrators ask is JSON (`schemas/worker_orders.py`), the rest a word.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import BaseModel

from broker.connection import Connection
from broker.errors import BrokerTimeout, NoResponders
from broker.subjects import CANCEL_ALL, is_valid_id, worker_control_subject
from schemas.errors import ErrorCode, ServingError
from schemas.worker_orders import (
    Answer,
    NotAnOrder,
    Order,
    decode_answer,
    decode_order,
    encode_answer,
    encode_order,
    encode_refusal,
)

_log = logging.getLogger("inferflux.broker.worker_control")

PING = b"ping"
DRAIN = b"drain"
HOLDS = b"holds "
_OK = b"ok"
_ORDER = b"{"

Obey = Callable[[Order], Awaitable[BaseModel]]


class Listening:
    """A subscription that can be ended."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def close(self) -> None:
        with contextlib.suppress(nats.errors.Error):  # already closed, with its connection
            await self._subscription.unsubscribe()


async def serve_control(
    connection: Connection,
    worker_id: str,
    on_drain: Callable[[], Awaitable[None]],
    in_hand: Callable[[], Awaitable[Collection[int]]],
    obey: Obey | None = None,
) -> Listening:
    """Worker: answer "ping" with "ok" while the loop runs, "drain" with "ok" after calling `on_drain`, and "holds 7 9"
    with those of the stream sequences that are `in_hand`.

    `on_drain` starts the draining and returns. `in_hand` tells of everything that was delivered to this process before
    it was called. While this subscription lasts the worker counts as alive. Orders go to `obey`, each in a task of its
    own, so that one that takes long keeps nobody waiting; without it they are refused.
    """
    obeying: set[asyncio.Task[None]] = set()

    async def answer_to(question: bytes) -> bytes | None:
        if question == PING:
            return _OK
        if question == DRAIN:
            await on_drain()
            return _OK
        if question.startswith(HOLDS):
            asked = question.removeprefix(HOLDS).split()
            held = {b"%d" % seq for seq in await in_hand()}
            return b" ".join(seq for seq in asked if seq in held)
        return None

    async def on_message(message: Msg) -> None:
        if message.reply and message.data.startswith(_ORDER):
            task = asyncio.create_task(_answer_order(connection, message, obey), name="order")
            obeying.add(task)
            task.add_done_callback(obeying.discard)
            return
        answer = await answer_to(message.data)
        if answer is None:
            _log.warning("unknown control message of %d bytes", len(message.data))
        elif message.reply:
            await connection.publish(message.reply, answer)

    return Listening(await connection.subscribe(worker_control_subject(worker_id), on_message))


async def _answer_order(connection: Connection, message: Msg, obey: Obey | None) -> None:
    try:
        if obey is None:
            raise ServingError(ErrorCode.WORKER_UNAVAILABLE, "the worker takes no orders")
        answer = encode_answer(await obey(decode_order(message.data)))
    except NotAnOrder as error:
        answer = encode_refusal(ServingError(ErrorCode.INVALID_PARAMETER, f"the worker does not know this: {error}"))
    except ServingError as error:
        answer = encode_refusal(error)
    except Exception:
        _log.exception("an order failed")
        answer = encode_refusal(ServingError(ErrorCode.INTERNAL, "the worker failed on this"))
    await connection.publish(message.reply, answer)


async def subscribe_cancels(connection: Connection, on_cancel: Callable[[str], None]) -> Listening:
    """Worker: call `on_cancel(request_id)` for every cancellation, of any worker's requests."""

    async def on_message(message: Msg) -> None:
        request_id = message.subject.rpartition(".")[2]
        if is_valid_id(request_id):
            on_cancel(request_id)

    return Listening(await connection.subscribe(CANCEL_ALL, on_message))


class WorkerControl:
    """Edge: the asking side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def is_alive(self, worker_id: str, timeout_s: float = 0.05) -> bool:
        """False only when nobody listens on the worker's subject, so its process is gone or cut off.

        Slow is not dead: no answer in `timeout_s` counts as alive, and so does our own broken connection.
        """
        try:
            await self._connection.request(worker_control_subject(worker_id), PING, timeout_s)
        except NoResponders:
            return False
        except BrokerTimeout:
            return True
        return True

    async def held(self, worker_id: str, seqs: Collection[int], timeout_s: float = 0.25) -> set[int]:
        """Those of the deliveries, by stream sequence, that the worker has in hand.

        Raises NoResponders when nobody listens on its subject, BrokerTimeout when it does not say.
        """
        question = HOLDS + b" ".join(b"%d" % seq for seq in seqs)
        answer = await self._connection.request(worker_control_subject(worker_id), question, timeout_s)
        return {seq for seq in seqs if b"%d" % seq in answer.data.split()}

    async def order(self, worker_id: str, order: Order, kind: type[Answer], timeout_s: float) -> Answer:
        """Ask for something; the worker's answer. A worker's reply is taken for two minutes at most.

        Raises ServingError with what it refused, NoResponders, BrokerTimeout.
        """
        subject = worker_control_subject(worker_id)
        return decode_answer((await self._connection.request(subject, encode_order(order), timeout_s)).data, kind)

    async def answers(self, worker_id: str, timeout_s: float = 1.0) -> bool:
        """Whether the worker says that it lives."""
        return await self._ask(worker_id, PING, timeout_s)

    async def drain(self, worker_id: str, timeout_s: float = 1.0) -> bool:
        """Ask a worker to drain; False when it does not answer."""
        return await self._ask(worker_id, DRAIN, timeout_s)

    async def _ask(self, worker_id: str, what: bytes, timeout_s: float) -> bool:
        try:
            await self._connection.request(worker_control_subject(worker_id), what, timeout_s)
        except (NoResponders, BrokerTimeout):
            return False
        return True
