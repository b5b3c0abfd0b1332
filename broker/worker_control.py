"""Control messages to workers over core NATS: is it alive, drain, was cancelled. Fast paths, never the truth."""

import contextlib
import logging
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.connection import Connection
from broker.errors import BrokerTimeout, NoResponders
from broker.subjects import CANCEL_ALL, is_valid_id, worker_control_subject

_log = logging.getLogger("inferflux.broker.worker_control")

PING = b"ping"
DRAIN = b"drain"
_OK = b"ok"


class Listening:
    """A subscription that can be ended."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def close(self) -> None:
        with contextlib.suppress(nats.errors.Error):  # already closed, with its connection
            await self._subscription.unsubscribe()


async def serve_control(connection: Connection, worker_id: str, on_drain: Callable[[], Awaitable[None]]) -> Listening:
    """Worker: answer "ping" with "ok" while the loop runs, and "drain" with "ok" after calling `on_drain`.

    `on_drain` starts the draining and returns. While this subscription lasts the worker counts as alive.
    """

    async def on_message(message: Msg) -> None:
        if message.data == DRAIN:
            await on_drain()
        elif message.data != PING:
            _log.warning("unknown control message of %d bytes", len(message.data))
            return
        if message.reply:
            await connection.publish(message.reply, _OK)

    return Listening(await connection.subscribe(worker_control_subject(worker_id), on_message))


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
