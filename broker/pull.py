"""Take requests from the queue, highest class first, never more than there is room for.

One waiting pull per class; a class without one is asked first without waiting, so that a backlog is taken in order of
class, but for one that has waited too long (`ageing`). Where requests may take the place of others, a full worker asks
for these again and again, without waiting: one with a free place has a waiting pull open, and so gets them first. The
client library's `fetch` is not used: it misses dead servers and strands messages.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.ageing import ClassAges
from broker.connection import Connection
from broker.errors import BrokerError, BrokerTimeout
from broker.inbox import status
from broker.lease import Lease
from broker.specs import ACK_WAIT_S
from broker.subjects import STREAM_REQUESTS, consumer_name, request_subject
from schemas.requests import PriorityClass

_log = logging.getLogger("inferflux.broker.pull")

# A worker that leaves has to wait for the end of its pulls, and what a frozen one catches meanwhile waits for ack_wait.
EXPIRES_S = 1.0
HEARTBEAT_S = 0.5
_MISSED_S = 2.5 * HEARTBEAT_S
_NO_WAIT_S = 1.0
# How often a full worker asks for what may take the place of others.
_ASK_AGAIN_S = 0.025
_RETRY_S = 0.05
_MAX_RETRY_S = 1.0
_FAILED_HANDLER_DELAY_S = 1.0
# Standing still for longer than this, what waits in the socket may be older than its ack_wait.
_STILL_S = ACK_WAIT_S - EXPIRES_S
_WAITING = json.dumps({"batch": 1, "expires": int(EXPIRES_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)}).encode()


@dataclass(slots=True)
class _Lane:
    """One consumer: what is asked of it now, and when it may be asked again after an error."""

    name: str
    priority: PriorityClass
    pull: "_Pull | None" = None
    retry_at: float = 0.0
    pause_s: float = _RETRY_S


@dataclass(slots=True)
class _Pull:
    """One request for messages that the server has not yet answered in full."""

    token: str
    lane: _Lane
    remaining: int
    ends_at: float
    seen_at: float = field(default_factory=time.monotonic)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class PullLoop:
    """Pulls for one model. `credit()` is how many leases the owner can take now; it is asked before every hand-over.

    `on_lease` takes its credit before it first awaits, and returns soon: the next lease waits for it.
    A lease that comes when there is no credit goes back at once and its class is not asked until there is some.
    `places(priority)`, where it is given, is how many more of a class could start without credit, in the place of
    others.
    """

    def __init__(
        self,
        connection: Connection,
        model: str,
        *,
        worker_id: str,
        on_lease: Callable[[Lease], Awaitable[None] | None],
        credit: Callable[[], int],
        places: Callable[[PriorityClass], int] | None = None,
        lanes: int = 1,
    ) -> None:
        self._connection = connection
        self._name = f"{worker_id}/{model}"
        self._on_lease = on_lease
        self._credit = credit
        self._places = places
        names = [(model, priority, str(lane)) for priority in PriorityClass for lane in range(lanes)]
        self._lanes = [_Lane(consumer_name(*name), name[1]) for name in names]
        self._lane_of = {request_subject(*name): lane for name, lane in zip(names, self._lanes, strict=True)}
        self._by_name = {lane.name: lane for lane in self._lanes}
        self._ages = ClassAges({lane.name: lane.priority for lane in self._lanes})
        self._pulls: dict[str, _Pull] = {}
        self._tokens = count()
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._wake = asyncio.Event()
        self._next = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._moved_at = time.monotonic()
        self._was_still = False
        self.surplus = 0
        self.stale = 0

    async def start(self) -> None:
        """Begin to pull. The consumers need not exist yet."""
        assert self._task is None, "already started"
        self._inbox = self._connection.raw.new_inbox()
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        self._connection.on_reconnect(self._restart)
        self._task = asyncio.create_task(self._run(), name=f"pull {self._name}")

    async def handed_over(self) -> None:
        """Wait until everything that has arrived by now is with `on_lease`, or given back."""
        while self._subscription is not None and self._subscription.pending_msgs:
            self._next.clear()
            await self._next.wait()

    def wake(self) -> None:
        """Credit may have grown."""
        self._wake.set()

    async def stop(self) -> None:
        """Stop asking, give back what still comes, and return when nothing can come any more (at most 1 s)."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
            self._task = None
        # A pull is never cancelled by unsubscribing: a message on its way would be stranded until ack_wait.
        while self._pulls and self._connection.is_connected:
            pull = next(iter(self._pulls.values()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pull.ends_at - time.monotonic())):
                    await pull.done.wait()
            self._drop_overdue(time.monotonic())
        self._connection.remove_on_reconnect(self._restart)
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()
            self._subscription = None
        self._next.set()

    async def _restart(self) -> None:
        """After a reconnection the server has forgotten our pulls."""
        for token in list(self._pulls):
            self._end(token)
        self.retry()

    def retry(self) -> None:
        """Ask the classes that failed again without a pause: what was missing may be there now."""
        for lane in self._lanes:
            lane.retry_at, lane.pause_s = 0.0, _RETRY_S
        self._wake.set()

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            self._note_time()
            if self._was_still:
                await self._recover()
            if not self._connection.is_connected:
                await self._wake.wait()
                continue
            self._drop_overdue(time.monotonic())
            if self._credit() <= 0:
                await self._wait_without_credit()
                continue
            await self._take_backlog()
            if self._credit() > 0 and not self._stopping:
                await self._open_waiting()
            await self._sleep()

    async def _wait_without_credit(self) -> None:
        """Until there may be some again; meanwhile what may take the place of others is asked for."""
        if self._places is None:
            await self._wake.wait()
            return
        for lane in self._lanes:
            if self._is_askable(lane) and (places := self._places(lane.priority)) > 0:
                await self._take_now(lane, places)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ASK_AGAIN_S):
                await self._wake.wait()

    def _note_time(self) -> None:
        now = time.monotonic()
        self._was_still = self._was_still or now - self._moved_at > _STILL_S
        self._moved_at = now

    async def _recover(self) -> None:
        """This process was stopped: what came meanwhile is somebody else's by now, and so neither taken nor given back.

        All our pulls have ended, so that everything until the answer to a ping is old.
        """
        for token in list(self._pulls):
            self._end(token)
        with contextlib.suppress(BrokerTimeout):
            await self._connection.flush()
        self._was_still = False

    async def _sleep(self) -> None:
        """Until something happens, or the next pull may be overdue or the next class may be asked again."""
        now = time.monotonic()
        times = [min(pull.seen_at + _MISSED_S, pull.ends_at) for pull in self._pulls.values()]
        times += [lane.retry_at for lane in self._lanes if lane.pull is None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, min(times) - now) if times else None):
                await self._wake.wait()

    async def _take_backlog(self) -> None:
        """Ask the classes that have no pull open, highest first, for as much as there is credit."""
        for name, limit in self._ages.turns(time.monotonic()):
            credit = self._credit()
            if credit <= 0 or self._stopping:
                break
            if self._is_askable(lane := self._by_name[name]):
                await self._take_now(lane, min(credit, limit or credit))
        else:
            return
        await self._look_behind()

    async def _take_now(self, lane: _Lane, limit: int) -> None:
        """Ask a class for what it has at this moment."""
        body = json.dumps({"batch": limit, "no_wait": True}).encode()
        pull = await self._ask(lane, body, limit, _NO_WAIT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NO_WAIT_S):
                await pull.done.wait()

    def _is_askable(self, lane: _Lane) -> bool:
        return not self._stopping and lane.pull is None and lane.retry_at <= time.monotonic()

    async def _look_behind(self) -> None:
        """See how long the classes wait that no credit was left for."""
        for name in self._ages.unseen(time.monotonic()):
            if self._by_name[name].pull is not None:
                continue
            try:
                info = await self._connection.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.{name}", timeout_s=_NO_WAIT_S)
            except BrokerError:
                self._ages.note_unknown(name, time.monotonic())
                continue
            num_unsettled = info["num_pending"] + info["num_ack_pending"]
            delivered = info["delivered"]["consumer_seq"]
            self._ages.note_look(name, time.monotonic(), num_unsettled=num_unsettled, num_delivered=delivered)

    async def _open_waiting(self) -> None:
        now = time.monotonic()
        for lane in self._lanes:
            if lane.pull is None and lane.retry_at <= now:
                # Half a second of grace: the server's own end of the pull comes first.
                await self._ask(lane, _WAITING, 1, EXPIRES_S + HEARTBEAT_S)

    async def _ask(self, lane: _Lane, body: bytes, batch: int, limit_s: float) -> _Pull:
        token = str(next(self._tokens))
        pull = _Pull(token, lane, batch, time.monotonic() + limit_s)
        lane.pull = self._pulls[token] = pull
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_REQUESTS}.{lane.name}"
        await self._connection.publish(subject, body, reply=f"{self._inbox}.{token}")
        return pull

    def _end(self, token: str) -> None:
        pull = self._pulls.pop(token, None)
        if pull is not None:
            if pull.lane.pull is pull:
                pull.lane.pull = None
            pull.done.set()
            self._wake.set()

    def _drop_overdue(self, now: float) -> None:
        """Forget pulls whose server is silent. What they still bring is taken or given back like any other."""
        for token, pull in list(self._pulls.items()):
            if now >= pull.ends_at or now - pull.seen_at > _MISSED_S:
                self._end(token)

    async def _on_message(self, message: Msg) -> None:
        self._next.set()
        self._note_time()
        if self._was_still:
            self.stale += bool(message.reply)
            self._wake.set()
            return
        if message.reply:
            try:
                # First, so that work on it begins before more is asked for.
                await self._hand_over(message)
            finally:
                self._count(message)
            return
        # Only the server's own messages carry our token in their subject.
        token = message.subject.rpartition(".")[2]
        code = status(message)
        if code == "100":
            if token in self._pulls:
                self._pulls[token].seen_at = time.monotonic()
        elif code is not None:
            self._on_end(token, code, (message.headers or {}).get("Description", ""))

    def _count(self, message: Msg) -> None:
        """One message of the pull that its class has open is there."""
        lane = self._lane_of.get(message.subject)
        if lane is None or lane.pull is None:
            return
        lane.pause_s = _RETRY_S
        lane.pull.remaining -= 1
        lane.pull.seen_at = time.monotonic()
        self._ages.note_served(lane.name, lane.pull.seen_at)
        if lane.pull.remaining <= 0:
            self._end(lane.pull.token)

    def _on_end(self, token: str, code: str, reason: str) -> None:
        """A pull ended without (all of) its messages: 404 and 408 are the ordinary ways, others mean wait a little."""
        pull = self._pulls.get(token)
        if pull is None:
            return
        lane = pull.lane
        if code in ("404", "408"):
            lane.pause_s = _RETRY_S
            self._ages.note_empty(lane.name, time.monotonic())
        else:
            log = _log.info if lane.pause_s == _RETRY_S else _log.debug
            log("%s: consumer %s: %s %s", self._name, lane.name, code, reason)
            lane.retry_at = time.monotonic() + lane.pause_s
            lane.pause_s = min(2 * lane.pause_s, _MAX_RETRY_S)
        self._end(token)

    async def _hand_over(self, message: Msg) -> None:
        lease = Lease(self._connection, message.subject, message.reply, message.data, message.headers)
        has_room = self._credit() > 0 or (self._places is not None and self._places(lease.priority) > 0)
        if self._stopping or not has_room:
            self.surplus += 1
            await lease.nak()
            return
        try:
            result = self._on_lease(lease)
            if result is not None:
                await result
        except Exception:
            _log.exception("%s: a delivery could not be taken", self._name)
            await lease.nak(_FAILED_HANDLER_DELAY_S)
