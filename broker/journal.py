"""The edge's view of journals: one reader for all its requests, each folded once however many wait for it."""

import asyncio
import logging
import time

from broker.connection import Connection
from broker.errors import ApiError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.reader import JournalReader, StartAt
from broker.subjects import STREAM_TOKENS, cancel_subject, edge_journals, journal
from schemas.codec import CodecError, decode_event, encode_event
from schemas.events import Accepted, Cancelled, Delta, Event, Failed, Progress
from schemas.fold import Fold

_log = logging.getLogger("inferflux.broker.journal")

# Reasons of the `Cancelled` that stays, for the stream's age, in place of a journal that was dropped: its end was
# delivered, or the time in which a client may come back for it is over.
PURGED = "purged"
LAPSED = "lapsed"
_WRITE_S = 10.0


class JournalView:
    """One open request: its fold so far, and waiting for more. Close it when nobody waits any more."""

    def __init__(self, hub: "JournalHub", request_id: str) -> None:
        self._hub = hub
        self._request_id = request_id
        self._waiter: asyncio.Future[None] | None = None
        self._news = 0
        self._told = 0
        self.fold = Fold()
        self.progress: Progress | None = None
        self.last_activity = time.monotonic()

    async def changed(self, length: int, timeout_s: float | None) -> bool:
        """Wait until there are more than `length` tokens, or an end, or news (a claim, a hand-back, progress).

        News counts if it came after the last call returned. False on timeout. Several may wait.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        told = self._told
        while True:
            if self._news != told or self.fold.length > length or self.fold.terminal is not None:
                self._told = self._news
                return True
            if self._waiter is None:
                self._waiter = loop.create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    # Shared by all that wait, so one of them leaving must not cancel it.
                    await asyncio.shield(self._waiter)
            except TimeoutError:
                return False

    def close(self) -> None:
        """Forget the request; later records are ignored."""
        self._hub.forget(self._request_id, self)

    def take(self, event: Event, seq: int) -> None:
        """Fold one record and wake who waits. Called by the hub."""
        self.last_activity = time.monotonic()
        if isinstance(event, Progress):
            if event.run != self.fold.run:
                return
            self.progress = event
            self._news += 1
        elif not self.fold.feed(event, seq):
            if isinstance(event, (Delta, Accepted)):
                return  # nothing that somebody waits for
            self._news += 1
        if self._waiter is not None:
            # Once per batch: those who wait run only after all that has arrived is folded.
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None


class JournalHub:
    """Reads the journals of one edge live. Records of requests that nobody opened are ignored."""

    def __init__(self, connection: Connection, edge_id: str) -> None:
        self._connection = connection
        self._edge_id = edge_id
        self._views: dict[str, JournalView] = {}
        self._reader = JournalReader(
            connection, STREAM_TOKENS, edge_journals(edge_id), self._on_record, start=StartAt.new()
        )
        self.undecodable = 0

    @property
    def is_live(self) -> bool:
        """Whether records arrive as they are written: without that, silence of a stream says nothing."""
        return self._reader.is_live

    @property
    def resets(self) -> int:
        """How often the reader had to be attached again."""
        return self._reader.resets

    async def start(self) -> None:
        """Attach the reader; waits while the journal stream does not exist."""
        await self._reader.start()

    async def close(self) -> None:
        await self._reader.close()

    def open(self, request_id: str) -> JournalView:
        """Follow a request of this edge. Call it before `accept`: what was written earlier is not seen."""
        assert request_id not in self._views, "already open"
        view = self._views[request_id] = JournalView(self, request_id)
        return view

    def forget(self, request_id: str, view: JournalView) -> None:
        if self._views.get(request_id) is view:
            del self._views[request_id]

    async def accept(self, accepted: Accepted) -> int:
        """Write the head of a journal; returns its sequence. Raises BrokerUnavailable, StreamFull."""
        head = journal(self._edge_id, accepted.request_id).head
        ack = await self._connection.publish_acked(head, encode_event(accepted), give_up_s=_WRITE_S)
        return ack.seq

    async def end(self, edge: str, request_id: str, event: Cancelled | Failed, *, give_up_s: float = _WRITE_S) -> None:
        """End a request, of any edge, for good; then tell the worker that runs it. Harmless after another end.

        Raises BrokerUnavailable when the outcome is not known after `give_up_s`. Withdrawing it from the queue is
        another step.
        """
        await self._connection.publish_acked(journal(edge, request_id).run, encode_event(event), give_up_s=give_up_s)
        await self._connection.publish(cancel_subject(request_id), b"")

    async def purge(self, edge: str, request_id: str, reason: str = PURGED) -> None:
        """Drop a journal, of any edge; a mark without text stays, so that a late delivery finds it ended.

        Raises BrokerUnavailable; its age drops the journal in any case.
        """
        subjects = journal(edge, request_id)
        mark = await self._connection.publish_acked(subjects.run, encode_event(Cancelled(reason)), give_up_s=_WRITE_S)
        try:
            await self._connection.api(f"STREAM.PURGE.{STREAM_TOKENS}", {"filter": subjects.all, "seq": mark.seq})
        except (ApiError, BrokerTimeout, NoResponders) as error:
            raise BrokerUnavailable(f"journal {request_id} was not dropped: {error}") from error

    def _on_record(self, subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        view = self._views.get(subject.split(".")[3])
        if view is None:
            return
        try:
            event = decode_event(payload)
        except CodecError as error:
            self.undecodable += 1
            if self.undecodable == 1:
                _log.warning("record %d on %s: %s (later ones are only counted)", seq, subject, error)
            return
        view.take(event, seq)
