"""One connection of one role: connect, stay connected, publish with a decided outcome."""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.address import bare_url
from broker.broker_config import BrokerConfig, connect_options
from broker.client import Client
from broker.complaints import Complaints
from broker.errors import (
    ApiError,
    BrokerError,
    BrokerTimeout,
    BrokerUnavailable,
    NoResponders,
    NotConnected,
    StreamMissing,
)
from broker.inbox import Inbox
from broker.outcomes import Expect, PubAck, as_final, is_transient, parse_answer, publish_headers
from broker.roles import Role
from broker.subjects import heard_inbox
from broker.suitability import require_jetstream, require_version

__all__ = ["BrokerConfig", "Connection"]
_log = logging.getLogger("inferflux.broker.connection")

_ATTEMPT_S = 1.0
_RETRY_S = 0.05
_MAX_RETRY_S = 1.0


class Connection:
    """Shared by everything in a process that acts in one role; used from one event loop."""

    def __init__(self, config: BrokerConfig) -> None:
        self._config = config
        self._client = Client(needs_tls=config.tls is not None)
        self._inbox: Inbox | None = None
        self._heard: Inbox | None = None
        self._connected = asyncio.Event()
        self._reconnect_callbacks: list[Callable[[], Awaitable[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._complaints = Complaints(config, self._inboxes, self._on_shut_out)
        self._has_begun = False
        self._closing = False
        self.reconnects = 0
        self.dropped = 0

    @classmethod
    async def open(cls, config: BrokerConfig, *, timeout_s: float = 10) -> "Connection":
        """Connect and check that the broker can serve us; one that has no leader yet is waited for.

        Raises BrokerUnavailable (nothing answers in time) or BrokerUnsuitable (refused, too old, no JetStream).
        """
        self = cls(config)
        try:
            await self._connect(timeout_s)
            await self._check()
        except BaseException:
            await self.close()
            raise
        _log.info("connected to %s as %s, nats-server %s", bare_url(config.url), config.role, self.server_version)
        return self

    @property
    def role(self) -> Role:
        return self._config.role

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    @property
    def is_closed(self) -> bool:
        """True once closed for good, by us or because the server threw us out. There is no way back."""
        return self._client.is_closed

    @property
    def num_refused(self) -> int:
        """Subjects that the server did not allow."""
        return self._complaints.num_refused

    @property
    def num_overrun(self) -> int:
        """Messages dropped at a subscription's limit."""
        return self._complaints.num_overrun

    @property
    def server_version(self) -> str:
        return str(self._client._server_info.get("version", "unknown"))

    @property
    def max_payload(self) -> int:
        return self._client.max_payload

    @property
    def raw(self) -> Client:
        """The client library's connection. For broker/ only."""
        return self._client

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run `callback` after every reconnection, in a task of its own."""
        self._reconnect_callbacks.append(callback)

    def remove_on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Undo `on_reconnect`. Unknown callbacks are ignored."""
        if callback in self._reconnect_callbacks:
            self._reconnect_callbacks.remove(callback)

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until connected; False when that takes longer than `timeout_s`."""
        if self._connected.is_set():
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            return False
        return True

    async def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Publish without an ack. Best effort: while disconnected the message is dropped and counted."""
        if not self._connected.is_set():
            self.dropped += 1
            return
        try:
            await self._client.publish(subject, payload, reply, headers)
        except (OSError, nats.errors.Error) as error:
            self.dropped += 1
            _log.debug("publish on %s: %s", subject, error)

    def publish_soon(self, subject: str, payload: bytes) -> None:
        """`publish` of what is of use only as long as it costs nobody a wait: dropped and counted when it would."""
        if not self._connected.is_set() or not self._client.publish_soon(subject, payload):
            self.dropped += 1

    async def publish_acked(
        self,
        subject: str,
        payload: bytes,
        *,
        headers: dict[str, str] | None = None,
        msg_id: str | None = None,
        expect: Expect | None = None,
        give_up_s: float = 10.0,
    ) -> PubAck:
        """Publish into a stream until the outcome is known.

        Unknown outcomes (no answer, no leader, connection lost) are retried with the same message, so without `msg_id`
        or `expect` it may be stored twice. Raises WrongSequence and StreamFull, which are final; after `give_up_s`
        StreamMissing or BrokerUnavailable, and then it may still have been stored.
        """
        all_headers = publish_headers(headers, msg_id, expect)
        deadline = time.monotonic() + give_up_s
        pause = _RETRY_S
        for attempt in count():
            try:
                ack = await self._publish_once(subject, payload, all_headers, deadline)
                return ack if attempt == 0 else ack._replace(duplicate=False)
            except (NoResponders, BrokerTimeout, ApiError) as error:
                if isinstance(error, ApiError) and not is_transient(error):
                    raise as_final(error) from None
                left = deadline - time.monotonic()
                if left <= pause:
                    raise self._gave_up(error, subject, give_up_s) from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _MAX_RETRY_S)
        raise AssertionError

    async def request(
        self, subject: str, payload: bytes, timeout_s: float = 1.0, *, headers: dict[str, str] | None = None
    ) -> Msg:
        """One request, one answer, no retry. Raises NoResponders, BrokerTimeout, Refused."""
        return await self._require_inbox().request(subject, payload, timeout_s, headers)

    async def ask_edge(self, subject: str, payload: bytes, timeout_s: float) -> Msg:
        """`request` for a worker that asks an edge. Raises as it does."""
        assert self._heard is not None, "not a worker's connection"
        return await self._heard.request(subject, payload, timeout_s)

    async def collect(self, subject: str, payload: bytes, timeout_s: float = 5.0) -> list[Msg]:
        """One request, many answers (see Inbox.collect), no retry. Raises NoResponders, BrokerTimeout, Refused."""
        return await self._require_inbox().collect(subject, payload, timeout_s)

    async def api(self, name: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
        """One JetStream API request, no retry. Raises ApiError, NoResponders, BrokerTimeout, Refused."""
        payload = json.dumps(body).encode() if body is not None else b""
        answer = await self.request(f"$JS.API.{name}", payload, timeout_s)
        return parse_answer(answer.data)

    async def subscribe(
        self,
        subject: str,
        callback: Callable[[Msg], Awaitable[None]],
        *,
        max_pending: int = 1 << 16,
        max_pending_bytes: int = 1 << 28,
    ) -> Subscription:
        """Subscribe and wait until the server knows it. It is renewed after a reconnection.

        Messages beyond the pending limits are dropped and reported in the log.
        """
        subscription = await self._client.subscribe(
            subject, cb=callback, pending_msgs_limit=max_pending, pending_bytes_limit=max_pending_bytes
        )
        await self._make_known()
        return subscription

    async def hear(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """`subscribe` for a `take` that is quick: called as a message is read from the socket, without a queue."""
        subscription = await self._client.hear(subject, take)
        await self._make_known()
        return subscription

    async def flush(self) -> None:
        """Wait until the server has taken all that was published. Raises BrokerTimeout, NotConnected."""
        # Twice: the client library sends a ping ahead of what waits in its buffer, and empties that meanwhile.
        await self._ping()
        await self._ping()

    async def drain(self) -> None:
        """Handle what has arrived, send what is waiting, then close."""
        self._closing = True
        with contextlib.suppress(nats.errors.Error):  # not connected: nothing can be drained
            await self._client.drain()
        await self.close()

    async def close(self) -> None:
        """Close at once. May be called again."""
        self._closing = True
        self._disconnected()
        for task in list(self._tasks):
            task.cancel()
        if not self._has_begun:
            return
        await self._client.close()
        reconnecting = self._client._reconnection_task
        if reconnecting is not None:
            await _cancel_for_sure(reconnecting)

    async def _make_known(self) -> None:
        """Wait until the server has what was subscribed; while there is no connection, the next one makes it."""
        with contextlib.suppress(NotConnected):
            await self.flush()

    async def _connect(self, timeout_s: float) -> None:
        options = connect_options(self._config)
        self._has_begun = True
        connecting = asyncio.create_task(
            self._client.connect(
                **options,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
            )
        )
        waited: set[asyncio.Future[Any]] = {connecting, self._complaints.refusal}
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            await _cancel_for_sure(connecting)
            if self._complaints.refusal.done():
                raise self._complaints.refusal.result()
            raise BrokerUnavailable(f"no NATS at {bare_url(self._config.url)}: {self._complaints.last}")
        try:
            connecting.result()
        except (OSError, nats.errors.Error) as error:
            raise BrokerUnavailable(f"no NATS at {bare_url(self._config.url)}: {error}") from error
        self._connected.set()
        self._inbox = Inbox(self._client)
        await self._inbox.start()
        if self.role is Role.WORKER:
            self._heard = Inbox(self._client, heard_inbox())
            await self._heard.start()

    async def _check(self) -> None:
        """Raise BrokerUnsuitable unless the server is new enough and has JetStream for us."""
        require_version(self.server_version)
        if self.role is not Role.BATCH:  # it may not ask for the account's figures
            await require_jetstream(lambda: self.api("INFO", timeout_s=_ATTEMPT_S), bare_url(self._config.url))

    async def _ping(self) -> None:
        if not self.is_connected:
            raise NotConnected("not connected")
        ping = asyncio.create_task(self._client.flush())
        # The library waits out its timeout for a ping that was lost with the connection.
        waited: set[asyncio.Future[None]] = {ping, self._lost}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not ping.done():
            await _cancel_for_sure(ping)
            raise NotConnected("connection lost")
        try:
            ping.result()
        except nats.errors.Error as error:
            raise BrokerTimeout(str(error)) from error

    async def _publish_once(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, deadline: float
    ) -> PubAck:
        await self.wait_connected(deadline - time.monotonic())
        answer = await self.request(subject, payload, _ATTEMPT_S, headers=headers)
        ack = parse_answer(answer.data)
        return PubAck(ack["stream"], ack["seq"], ack.get("duplicate", False))

    def _gave_up(self, error: BrokerError, subject: str, give_up_s: float) -> BrokerUnavailable:
        if isinstance(error, NoResponders):
            return StreamMissing(f"no stream takes {subject}: is the topology applied?")
        return BrokerUnavailable(f"no answer from the broker in {give_up_s:g} s: {error}")

    def _inboxes(self) -> Iterator[Inbox]:
        return (inbox for inbox in (self._inbox, self._heard) if inbox is not None)

    def _require_inbox(self) -> Inbox:
        assert self._inbox is not None, "not opened"
        return self._inbox

    async def _on_error(self, error: Exception) -> None:
        self._complaints.take(error, is_away=not self._client.is_connected and not self._closing)

    def _on_shut_out(self) -> None:
        task = asyncio.create_task(self.close())
        self._tasks.add(task)

    async def _on_disconnected(self) -> None:
        if self._connected.is_set() and not self._closing:
            _log.warning("connection lost: %s", self._complaints.last)
        self._disconnected()

    async def _on_reconnected(self) -> None:
        self._lost = asyncio.get_running_loop().create_future()
        self._connected.set()
        self._complaints.reconnected()
        self.reconnects += 1
        _log.info("reconnected to %s, nats-server %s", bare_url(self._config.url), self.server_version)
        # Tasks: the client library takes an error or a delay in here for a failed connection.
        for callback in list(self._reconnect_callbacks):
            task = asyncio.create_task(self._run(callback))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _disconnected(self) -> None:
        self._connected.clear()
        if not self._lost.done():
            self._lost.set_result(None)
        for inbox in self._inboxes():
            inbox.disconnected()

    async def _on_closed(self) -> None:
        self._disconnected()
        if not self._closing:
            _log.critical("the server closed the connection for good: %s", self._client.last_error)

    async def _run(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            await callback()
        except BrokerError as error:
            _log.warning("after reconnection: %s", error)


async def _cancel_for_sure(task: asyncio.Task[Any]) -> None:
    """Cancel until it works: before Python 3.12 a `wait_for` that ends just then swallows it, and the loop goes on."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_RETRY_S)
