"""The edge's side of the request queue: submit, withdraw, look at its depth, hand back for the dead."""

import asyncio
import logging
import time
from typing import Any, NamedTuple

from broker.blobs import drop_blob, put_blob
from broker.connection import Connection
from broker.errors import ApiError, BrokerError, BrokerTimeout, NoResponders, StreamFull
from broker.headers import BLOB, request_headers
from broker.records import get_record
from broker.subjects import STREAM_REQUESTS, consumer_name, delivery_subject, is_request_ack, request_subject
from schemas.codec import encode_request
from schemas.errors import ErrorCode, ServingError
from schemas.requests import GenerateRequest, PriorityClass

_log = logging.getLogger("inferflux.broker.work_queue")

MAX_INLINE_BYTES = 256 * 1024
_CACHE_S = 0.25
_MAX_KNOWN = 4096
_SUBMIT_S = 10.0
_HAND_BACK_S = 10.0
_RETRY_S = 0.05
_CONSUMER_NOT_FOUND = 10014
_NO_MESSAGE = 10057  # STREAM.MSG.DELETE of one that is gone


class QueueDepth(NamedTuple):
    """Requests of one model and class: not yet delivered, and delivered but not settled."""

    waiting: int
    running: int


class Look(NamedTuple):
    """A class of a model as the broker saw it after `asked_at` (monotonic).

    `num_delivered` counts deliveries since the queue was made, repeated ones too; `delivered_seq` is the place in the
    stream of the last request that was delivered for the first time. `num_asking`: pulls that wait for a request, those
    of workers that have just ended among them.
    """

    asked_at: float
    depth: QueueDepth
    num_delivered: int
    delivered_seq: int
    num_asking: int = 0


class WorkQueue:
    """Used by one edge, from its loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._looks: dict[str, Look] = {}
        self._looking: dict[str, asyncio.Task[Look]] = {}
        self._ages: dict[str, tuple[float, float]] = {}
        self._blobs: set[str] = set()

    async def submit(self, request: GenerateRequest) -> int:
        """Queue a request; returns its stream sequence. Submitting the same submission again is harmless.

        Raises ServingError: QUEUE_FULL when refused for sure, BROKER_UNAVAILABLE when there is no room, or when the
        outcome is unknown after ten seconds: it may run then, so the caller ends its journal. INTERNAL when a requeue
        reuses its number.
        """
        try:
            return await self._submit(request)
        except StreamFull as error:
            raise _full(error) from error
        except BrokerError as error:
            raise _unavailable(error) from error

    async def withdraw(self, seq: int) -> None:
        """Remove a request that is queued or was; harmless when it is gone. Best effort: its journal decides."""
        try:
            await self._connection.api(f"STREAM.MSG.DELETE.{STREAM_REQUESTS}", {"seq": seq}, timeout_s=1.0)
        except ApiError as error:
            if error.err_code != _NO_MESSAGE:
                _log.warning("withdraw of %d: %s", seq, error)
        except (BrokerTimeout, NoResponders) as error:
            _log.warning("withdraw of %d: %s", seq, error)

    async def release_body(self, request_id: str) -> None:
        """Delete the claim-checked body of a request that has ended or was never queued; does nothing for the others.

        Best effort.
        """
        if request_id not in self._blobs:
            return
        self._blobs.discard(request_id)
        try:
            await drop_blob(self._connection, request_id)
        except BrokerError as error:
            _log.warning("body of %s stays until it is too old: %s", request_id, error)

    async def depth(self, model: str, priority: PriorityClass) -> QueueDepth:
        """Waiting and running requests, at most 250 ms old; zeros while the model has no queue.

        Raises ServingError(BROKER_UNAVAILABLE).
        """
        return (await self.look(model, priority)).depth

    async def look(self, model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        """What the broker says, asked after `asked_after` (monotonic, not in the future) and at most 250 ms ago.

        Raises ServingError(BROKER_UNAVAILABLE).
        """
        name = consumer_name(model, priority)
        while True:
            known, now = self._looks.get(name), time.monotonic()
            if known is not None and known.asked_at >= max(asked_after, now - _CACHE_S):
                if known.asked_at < now - _CACHE_S / 2:
                    self._begin_to_ask(name)  # so that, as long as calls come, none of them has to wait for it
                return known
            look = await self._ask_once(name)
            if look.asked_at >= asked_after:
                return look

    async def patient_look(self, model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        """`look` for a call about to be submitted: waits for a broker that comes back as long as `submit` does."""
        deadline = time.monotonic() + _SUBMIT_S
        while True:
            await self._connection.wait_connected(max(0.0, deadline - time.monotonic()))
            try:
                return await self.look(model, priority, asked_after=asked_after)
            except ServingError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)

    async def oldest_age_s(self, model: str, priority: PriorityClass) -> float:
        """How long the oldest undelivered request has waited, by the broker's clock against ours; 0.0 with none.

        Raises ServingError(BROKER_UNAVAILABLE).
        """
        look = await self.look(model, priority)
        if look.depth.waiting == 0:
            return 0.0
        subject = request_subject(model, priority)
        known = self._ages.get(subject)
        if known is None or known[0] != look.asked_at:
            query = {"seq": look.delivered_seq + 1, "next_by_subj": subject}
            try:
                record = await get_record(self._connection, STREAM_REQUESTS, query, give_up_s=1.0)
            except BrokerError as error:
                raise _unavailable(error) from error
            known = self._ages[subject] = (look.asked_at, record.stored_at if record is not None else time.time())
        return max(0.0, time.time() - known[1])

    async def hand_back(self, ack_subject: str) -> None:
        """Give a dead worker's delivery to another one. Safe when it lives: its next conditional write is refused.

        Retried until the queue confirms it or ten seconds are over; its lease runs out in any case. Raises ValueError
        for what is not an ack subject of the request stream: it came from a journal.
        """
        if not is_request_ack(ack_subject):
            raise ValueError(f"not an ack subject of {STREAM_REQUESTS}: {ack_subject!r}")
        deadline = time.monotonic() + _HAND_BACK_S
        while time.monotonic() < deadline:
            try:
                await self._connection.request(ack_subject, b"-NAK", 1.0)
                return
            except (NoResponders, BrokerTimeout) as error:  # no leader just now
                failure = error
            await asyncio.sleep(_RETRY_S)
            await self._connection.wait_connected(max(0.0, deadline - time.monotonic()))
        _log.warning("a delivery was not handed back: %s", failure)

    async def hand_back_unclaimed(self, model: str, priority: PriorityClass, seq: int, look: Look) -> None:
        """The same for a delivery that no claim tells of, seen open before `look`. Whoever holds it loses it.

        Nothing happens to a request that waits, also for its next delivery, or that is gone.
        """
        await self.hand_back(delivery_subject(model, priority, seq, look.num_delivered))

    async def _submit(self, request: GenerateRequest) -> int:
        payload = encode_request(request)
        headers = request_headers(request)
        if len(payload) > MAX_INLINE_BYTES:
            self._blobs.add(request.request_id)
            blob = await put_blob(self._connection, request.request_id, payload, _SUBMIT_S)
            headers[BLOB], payload = str(blob), b""
        ack = await self._connection.publish_acked(
            request_subject(request.model, request.priority),
            payload,
            headers=headers,
            msg_id=f"{request.request_id}.{request.submission}",
            give_up_s=_SUBMIT_S,
        )
        if ack.duplicate and request.submission:
            # The broker has dropped it: a deliberate requeue must bring a new number.
            raise ServingError(ErrorCode.INTERNAL, f"submission {request.submission} was used before")
        return ack.seq

    async def _ask_once(self, name: str) -> Look:
        try:
            return await asyncio.shield(self._begin_to_ask(name))
        except BrokerError as error:
            raise _unavailable(error) from error

    def _begin_to_ask(self, name: str) -> asyncio.Task[Look]:
        """One question at a time, however many ask."""
        task = self._looking.get(name)
        if task is None:
            task = self._looking[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(_look_at)
        return task

    async def _ask(self, name: str) -> Look:
        asked_at = time.monotonic()
        depth, num_delivered, delivered_seq, num_asking = QueueDepth(0, 0), 0, 0, 0
        try:
            info: dict[str, Any] = await self._connection.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.{name}", timeout_s=1.0)
            depth = QueueDepth(info["num_pending"], info["num_ack_pending"])
            num_delivered, delivered_seq = info["delivered"]["consumer_seq"], info["delivered"]["stream_seq"]
            num_asking = info["num_waiting"]
        except ApiError as error:
            if error.err_code != _CONSUMER_NOT_FOUND:
                raise
        finally:
            # Here and not when the task is done: whoever asks in between wants a new answer.
            del self._looking[name]
        if len(self._looks) >= _MAX_KNOWN:  # of models that came and went
            self._looks.clear()
            self._ages.clear()
        look = self._looks[name] = Look(asked_at, depth, num_delivered, delivered_seq, num_asking)
        return look


def _look_at(asking: asyncio.Task[Look]) -> None:
    """Who waits for it has its failure; nobody may."""
    if not asking.cancelled():
        asking.exception()


def _full(error: StreamFull) -> ServingError:
    if error.is_cap_of_subject:
        return ServingError(ErrorCode.QUEUE_FULL, "the queue of this model is full", retryable=True)
    return _unavailable(error)


def _unavailable(error: BrokerError) -> ServingError:
    _log.warning("broker: %s", error)
    reason = "has no room left" if isinstance(error, StreamFull) else "cannot be reached just now"
    return ServingError(ErrorCode.BROKER_UNAVAILABLE, f"the request queue {reason}", retryable=True, retry_after_s=5)
