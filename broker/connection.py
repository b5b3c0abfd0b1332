"""One connection of one role: connect, stay connected, publish with a decided outcome."""

import asyncio
import contextlib
import json
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.client import Client, NoTls
from broker.credentials import Login, find_login
from broker.errors import (
    ApiError,
    BrokerError,
    BrokerTimeout,
    BrokerUnavailable,
    BrokerUnsuitable,
    NoResponders,
    NotConnected,
    Refused,
    StreamMissing,
)
from broker.inbox import Inbox
from broker.outcomes import Expect, PubAck, as_final, is_transient, parse_answer, publish_headers
from broker.roles import Role, inbox_prefix
from broker.subjects import heard_inbox
from broker.tls import TlsFiles, client_context

_log = logging.getLogger("inferflux.broker.connection")

MIN_VERSION = (2, 12)
_ATTEMPT_S = 1.0
# A cluster that starts, or has lost too many servers, has no JetStream until most of them are there.
_JETSTREAM_S = 30.0
_RETRY_S = 0.05
_SHUT_OUT_S = 10.0
_MAX_RETRY_S = 1.0
_JETSTREAM_OFF = (10039, 10076)
_PERMISSIONS = "permissions violation"


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where and as whom to connect. `url` may list several servers, comma-separated.

    `credentials` is a directory of role files, one such file, or a `.creds` file; None takes the login from the url.
    They are read again for each connection, so a login may change. `tenant` is whose batches are published. With `tls`
    nothing is sent to a server that speaks none.
    """

    url: str
    role: Role
    name: str
    credentials: Path | None = None
    tenant: str | None = None
    tls: TlsFiles | None = None


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
        self._login: Login | None = None
        self._shut_out_since: float | None = None
        self._refusal: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._last_error = "no answer"
        self._has_begun = False
        self._closing = False
        self.reconnects = 0
        self.num_refused = 0
        self.num_overrun = 0
        self.dropped = 0
        self._overrun_logged_at = -1.0

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
        with contextlib.suppress(NotConnected):  # it is made with the next connection
            await self.flush()
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

    async def _connect(self, timeout_s: float) -> None:
        options = self._options()
        self._has_begun = True
        connecting = asyncio.create_task(self._client.connect(**options))
        waited: set[asyncio.Future[Any]] = {connecting, self._refusal}
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            await _cancel_for_sure(connecting)
            if self._refusal.done():
                raise self._refusal.result()
            raise BrokerUnavailable(f"no NATS at {bare_url(self._config.url)}: {self._last_error}")
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

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "servers": self._config.url.split(","),
            "name": self._config.name,
            "inbox_prefix": inbox_prefix(self._config.role, self._config.tenant),
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.1,
            "ping_interval": 5,
            "max_outstanding_pings": 2,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_closed,
        }
        if self._config.credentials is not None:
            login = find_login(self._config.credentials, self._config.role, self._config.tenant)
            if isinstance(login, Path):
                options["user_credentials"] = str(login)
            else:
                self._login = login
                options["user"], options["password"] = self._read_user, self._read_password
        else:
            # One login for all servers: those of a cluster that the url does not name are used as well.
            options.update(_login_in(self._config.url))
        if self._config.tls is not None:
            options["tls"] = client_context(self._config.tls)
        return options

    def _read_user(self) -> str:
        """Asked for before the password, for each attempt to connect."""
        assert self._login is not None and self._config.credentials is not None
        with contextlib.suppress(BrokerUnsuitable):  # unreadable just now: the one before may still hold
            login = find_login(self._config.credentials, self._config.role, self._config.tenant)
            if isinstance(login, Login):
                self._login = login
        return self._login.user

    def _read_password(self) -> str:
        assert self._login is not None
        return self._login.password

    async def _check(self) -> None:
        """Raise BrokerUnsuitable unless the server is new enough and has JetStream for us."""
        deadline, is_told = time.monotonic() + _JETSTREAM_S, False
        version = self.server_version
        if _parse_version(version) < MIN_VERSION:
            needed = ".".join(map(str, MIN_VERSION))
            raise BrokerUnsuitable(f"nats-server {version} is too old: {needed} or later is needed")
        if self.role is Role.BATCH:
            return  # it may not ask for the account's figures
        while True:
            try:
                await self.api("INFO", timeout_s=_ATTEMPT_S)
                return
            except NoResponders:
                raise BrokerUnsuitable(f"JetStream is off on {bare_url(self._config.url)}: start it with -js") from None
            except ApiError as error:
                if error.err_code in _JETSTREAM_OFF:
                    raise BrokerUnsuitable(f"JetStream is off for this account: {error.description}") from None
                last: BrokerError = error
            except BrokerTimeout as error:
                last = error
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"JetStream on {bare_url(self._config.url)} does not answer: {last}")
            if not is_told:
                _log.warning(
                    "waiting for JetStream on %s, which has no leader yet: %s", bare_url(self._config.url), last
                )
                is_told = True
            await asyncio.sleep(_RETRY_S)

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
        text = str(error) or type(error).__name__
        self._last_error = text
        lowered = text.lower()
        if "authorization violation" in lowered:
            if not self._refusal.done():
                self._refusal.set_result(Refused(f"{bare_url(self._config.url)} refuses the login of role {self.role}"))
            self._note_shut_out()
            return
        if isinstance(error, (ssl.SSLCertVerificationError, NoTls)) and not self._refusal.done():
            self._refusal.set_result(BrokerUnsuitable(f"{bare_url(self._config.url)}: {_tls_reason(error)}"))
        if _PERMISSIONS in lowered:
            self.num_refused += 1
            _log.error("role %s: %s", self.role, text)
            if '"' in text:
                for inbox in self._inboxes():
                    inbox.refused(text.split('"')[1], f"role {self.role} may not: {text}")
            return
        if isinstance(error, nats.errors.SlowConsumerError):
            self._note_overrun(error.subject)
        elif isinstance(error, (OSError, TimeoutError, nats.errors.Error)):
            _log.debug("%s", text)  # a loss of the connection is said once, below
        else:
            _log.error("a callback failed", exc_info=error)

    def _note_shut_out(self) -> None:
        """A login may be refused for moments, while it is exchanged. One that stays so ends the connection for good."""
        if self._client.is_connected or self._closing:
            return
        now = time.monotonic()
        self._shut_out_since = self._shut_out_since or now
        if self._inbox is not None and now - self._shut_out_since > _SHUT_OUT_S:
            _log.critical("%s refuses the login of role %s", bare_url(self._config.url), self.role)
            task = asyncio.create_task(self.close())
            self._tasks.add(task)

    def _note_overrun(self, subject: str) -> None:
        """A message was dropped at a subscription's limit; they come in thousands, so a line a second says enough."""
        self.num_overrun += 1
        now = time.monotonic()
        if now - self._overrun_logged_at >= 1.0:
            self._overrun_logged_at = now
            _log.warning("messages on %s come faster than they are handled: %d dropped", subject, self.num_overrun)

    async def _on_disconnected(self) -> None:
        if self._connected.is_set() and not self._closing:
            _log.warning("connection lost: %s", self._last_error)
        self._disconnected()

    async def _on_reconnected(self) -> None:
        self._lost = asyncio.get_running_loop().create_future()
        self._connected.set()
        self._shut_out_since = None
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


def _parse_version(text: str) -> tuple[int, ...]:
    numbers = text.partition("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    return str(error)


def _login_in(url: str) -> dict[str, str]:
    """The first login of the url: user and password, or a token."""
    for part in map(urlsplit, url.split(",")):
        if part.username is not None and part.password is not None:
            return {"user": part.username, "password": part.password}
        if part.username is not None:
            return {"token": part.username}
    return {}


def bare_url(url: str) -> str:
    """The url without logins, for messages."""
    return ",".join(
        part.split("://")[0] + "://" + part.rpartition("@")[2].rpartition("://")[2] for part in url.split(",")
    )
