"""The edge's view of journals: one reader for all its requests, each folded once however many wait for it."""

import contextlib
import logging

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from broker.connection import Connection
from broker.errors import ApiError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.journal_view import JournalView
from broker.live_view import LiveView
from broker.reader import JournalReader, StartAt
from broker.subjects import STREAM_TOKENS, cancel_subject, edge_journals, is_heard, journal, live_subject
from schemas.codec import CodecError, decode_event, encode_event
from schemas.events import Accepted, Cancelled, Delta, Event, Failed

__all__ = ["PURGED", "JournalHub", "JournalView"]
_log = logging.getLogger("inferflux.broker.journal")

# Reasons of the `Cancelled` that stays, for the stream's age, in place of a journal that was dropped: its end was
# delivered, or the time in which a client may come back for it is over.
PURGED = "purged"
LAPSED = "lapsed"
_WRITE_S = 10.0


class JournalHub:
    """Reads the journals of one edge live, and hears the tokens that enter none. What nobody opened is ignored."""

    def __init__(self, connection: Connection, edge_id: str) -> None:
        self._connection = connection
        self._edge_id = edge_id
        self._views: dict[str, JournalView] = {}
        self._reader = JournalReader(
            connection, STREAM_TOKENS, edge_journals(edge_id), self._on_record, start=StartAt.new()
        )
        self._listening: Subscription | None = None
        self.undecodable = 0

    @property
    def is_live(self) -> bool:
        """Whether records arrive as they are written: without that, silence of a stream says nothing."""
        return self._reader.is_live

    @property
    def live_since(self) -> float:
        """When the reader was last attached (monotonic)."""
        return self._reader.live_since

    @property
    def resets(self) -> int:
        """How often the reader had to be attached again."""
        return self._reader.resets

    async def start(self) -> None:
        """Attach the reader; waits while the journal stream does not exist."""
        self._listening = await self._connection.subscribe(live_subject(self._edge_id, "*"), self._on_live)
        await self._reader.start()

    async def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(nats.errors.Error):  # already closed, with its connection
                await listening.unsubscribe()
        await self._reader.close()

    def open(self, request_id: str, *, journaled: bool = True) -> JournalView:
        """Follow a request of this edge. Call it before `accept`: what was written earlier is not seen."""
        assert request_id not in self._views, "already open"
        kind = JournalView if journaled else LiveView
        view = self._views[request_id] = kind(request_id, self._forget)
        return view

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

    def _forget(self, view: JournalView) -> None:
        if self._views.get(view.request_id) is view:
            del self._views[view.request_id]

    async def _on_live(self, message: Msg) -> None:
        """Tokens of a request that is not journaled. Asked for an answer, an empty one says that nobody follows it."""
        view = self._views.get(message.subject.rpartition(".")[2])
        answer = b""
        if isinstance(view, LiveView):
            delta = self._decode(message.subject, message.data)
            if not isinstance(delta, Delta):
                return
            view.take_live(delta)
            if message.reply:
                answer = encode_event(view.held_after(delta))
        if is_heard(message.reply):  # else we could be made to write anywhere
            await self._connection.publish(message.reply, answer)

    def _on_record(self, subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        view = self._views.get(subject.split(".")[3])
        if view is None:
            return
        event = self._decode(subject, payload)
        if event is not None:
            view.take(event, seq)

    def _decode(self, subject: str, payload: bytes) -> Event | None:
        try:
            return decode_event(payload)
        except CodecError as error:
            self.undecodable += 1
            if self.undecodable == 1:
                _log.warning("message on %s: %s (later ones are only counted)", subject, error)
            return None
