"""Follow a stream in order and without gaps, through restarts of the broker and of the stream.

A push consumer without acks. Each generation has its own inbox and consumer; a missed heartbeat, a hole in the
consumer's count or a reconnection starts the next one after the last record seen.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.connection import Connection
from broker.errors import BrokerError
from broker.subjects import parse_delivery

_log = logging.getLogger("inferflux.broker.reader")

HEARTBEAT_S = 0.5
_MISSED_S = 2.5 * HEARTBEAT_S
_RETRY_S = 0.05
_MAX_RETRY_S = 0.5
_LAST_DELIVERY = "Nats-Last-Consumer"

OnRecord = Callable[[str, int, bytes, dict[str, str] | None], None]


@dataclass(frozen=True, slots=True)
class StartAt:
    """Where a reader begins: new records, the beginning, a sequence, a time, or the last record of each subject."""

    policy: str
    seq: int = 0
    time: str = ""

    @classmethod
    def new(cls) -> "StartAt":
        return cls("new")

    @classmethod
    def all(cls) -> "StartAt":
        return cls("all")

    @classmethod
    def sequence(cls, seq: int) -> "StartAt":
        return cls("by_start_sequence", seq)

    @classmethod
    def stored_since(cls, unix_time: float) -> "StartAt":
        """By the broker's clock."""
        return cls("by_start_time", time=datetime.fromtimestamp(unix_time, UTC).isoformat())

    @classmethod
    def last_per_subject(cls) -> "StartAt":
        return cls("last_per_subject")


class JournalReader:
    """Calls `on_record(subject, seq, payload, headers)` for every record under `filter_subject`, in stream order.

    `on_recreated` is called when the stream itself is a new one (its data was lost) before it is read from its
    beginning. `resets` counts generations after the first. `stored_ns` tells, in a callback, when its record was
    stored, as Unix time by the broker's clock. Callbacks run on the loop and must be quick.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        filter_subject: str,
        on_record: OnRecord,
        *,
        start: StartAt,
        on_recreated: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._filter = filter_subject
        self._on_record = on_record
        self._on_recreated = on_recreated
        self._start_at = start
        self._created: str | None = None  # creation time of the stream: tells a new one of the same name
        self._last_seq: int | None = None
        self._consumer: str | None = None
        self._consumer_seq = 0
        self._backlog = 0
        self._subscription: Subscription | None = None
        self._beat = 0.0
        self._kick = asyncio.Event()
        self._attached = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._generation = 0
        self.live_since = 0.0
        self.stored_ns = 0
        self.resets = 0

    @property
    def is_live(self) -> bool:
        """Whether a consumer is attached and its heartbeats come."""
        return self._consumer is not None and time.monotonic() - self._beat < _MISSED_S

    async def start(self) -> None:
        """Begin to follow; returns once attached. Waits while the stream does not exist."""
        if self._task is None:
            self._connection.on_reconnect(self._restart)
            self._kick.set()
            self._task = asyncio.create_task(self._run(), name=f"reader {self._filter}")
        await self._attached.wait()

    async def caught_up(self) -> None:
        """Wait until everything that was in the stream when it was attached has been handed over."""
        await self._caught_up.wait()

    async def close(self) -> None:
        """Stop; no callback runs afterwards."""
        self._connection.remove_on_reconnect(self._restart)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._detach()

    async def _restart(self) -> None:
        self._kick.set()

    async def _run(self) -> None:
        pause = _RETRY_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._kick.wait()
            if not self._kick.is_set() and self.is_live:
                continue
            self._kick.clear()
            try:
                await self._connection.wait_connected(60)
                await self._detach()
                await self._attach()
                pause = _RETRY_S
            except (BrokerError, nats.errors.Error) as error:
                _log.log(logging.INFO if pause == _RETRY_S else logging.DEBUG, "%s: %s", self._stream, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_RETRY_S)
                self._kick.set()

    async def _attach(self) -> None:
        info = await self._connection.api(f"STREAM.INFO.{self._stream}", timeout_s=2)
        self._note_stream(info["created"])
        if self._attached.is_set():
            self.resets += 1
        self._generation += 1
        generation = self._generation
        inbox = self._connection.raw.new_inbox()

        def take(message: Msg) -> None:
            if generation == self._generation:
                self._take(message)

        self._consumer_seq = 0
        self._subscription = await self._connection.hear(inbox, take)
        name = f"reader-{secrets.token_hex(8)}"
        body = {"stream_name": self._stream, "config": self._config(name, inbox), "action": "create"}
        subject = f"CONSUMER.CREATE.{self._stream}.{name}.{self._filter}"
        created = await self._connection.api(subject, body, timeout_s=2)
        self._consumer = name
        self._beat = self.live_since = time.monotonic()
        if self._last_seq is None and self._start_at.policy == "new":
            # From here on the position is known, so that a restart before the first record loses nothing.
            self._last_seq = created["delivered"]["stream_seq"]
        if not self._caught_up.is_set():
            self._backlog = created["num_pending"] + created["delivered"]["consumer_seq"]
            self._count_backlog()
        self._attached.set()

    def _note_stream(self, created: str) -> None:
        if self._created not in (None, created):
            _log.warning("stream %s is a new one: reading it from its beginning", self._stream)
            self._last_seq = 0
            if self._on_recreated is not None:
                self._on_recreated()
        self._created = created

    def _config(self, name: str, inbox: str) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": name,
            "filter_subject": self._filter,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
            "inactive_threshold": 30 * 10**9,
            "max_deliver": 1,
        }
        if self._last_seq is not None:
            return {**config, "deliver_policy": "by_start_sequence", "opt_start_seq": self._last_seq + 1}
        if self._start_at.policy == "by_start_sequence":
            config["opt_start_seq"] = self._start_at.seq
        if self._start_at.policy == "by_start_time":
            config["opt_start_time"] = self._start_at.time
        return {**config, "deliver_policy": self._start_at.policy}

    def _take(self, message: Msg) -> None:
        self._beat = time.monotonic()
        if not message.reply:
            self._note_heartbeat(message.headers or {})
            return
        delivery = parse_delivery(message.reply)
        if delivery.consumer_seq != self._consumer_seq + 1:
            self._begin_again()
            return
        self._consumer_seq = delivery.consumer_seq
        # A replica that lags begins at its own end, should that be before the start we asked for.
        if self._last_seq is None or delivery.stream_seq > self._last_seq:
            self._last_seq = delivery.stream_seq
            self.stored_ns = delivery.stored_ns
            self._on_record(message.subject, delivery.stream_seq, message.data, message.headers)
        self._count_backlog()

    def _note_heartbeat(self, headers: dict[str, str]) -> None:
        """It tells the last delivery: had that been dropped on our side, no later one would show the hole."""
        if int(headers.get(_LAST_DELIVERY, "0")) > self._consumer_seq:
            self._begin_again()

    def _begin_again(self) -> None:
        self._generation += 1  # drop what follows the hole
        self._kick.set()

    def _count_backlog(self) -> None:
        if self._consumer is not None and self._consumer_seq >= self._backlog:
            self._caught_up.set()

    async def _detach(self) -> None:
        """End the current generation. The server drops the consumer by itself should the message get lost."""
        self._generation += 1
        consumer, self._consumer = self._consumer, None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
        if consumer is not None:
            await self._connection.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{consumer}", b"")
