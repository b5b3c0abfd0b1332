"""One run of one worker on one request's journal: claim by compare-and-set, write, checkpoint, end.

An attempt is a claim record on `.run`. Everything that decides is written under the condition that our claim is still
the last record there; when that is refused because another one came, the run is fenced: it says nothing more, and
neither acks nor naks its delivery.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

from broker.connection import Connection
from broker.dead_letters import bury
from broker.errors import BrokerUnavailable, PayloadTooLarge, StreamFull, WrongSequence
from broker.lease import Lease
from broker.outcomes import Expect
from broker.records import Record, get_record, read_records
from broker.subjects import STREAM_TOKENS, journal
from broker.takeover import ClaimOutcome, Takeover, decode_record, judge
from schemas.codec import encode_event
from schemas.errors import ErrorCode
from schemas.events import Cancelled, Delta, Event, Failed, Finished, FinishReason, Progress, Released, Started, Usage
from schemas.fold import Fold

__all__ = ["Addressed", "Claim", "ClaimOutcome"]
_log = logging.getLogger("inferflux.broker.claims")

_ACQUIRE_S = 20.0
CHECKPOINT_S = 10.0
END_S = 60.0
_RETRY_S = 0.005
# Tokens in one delta: keeps a checkpoint after a long outage under any payload limit.
MAX_DELTA_TOKENS = 8192


class Addressed(Protocol):
    """A request or a reference to one."""

    @property
    def edge(self) -> str: ...
    @property
    def request_id(self) -> str: ...


class Claim:
    """Owned by one task group of a worker; used from its loop. `checkpoint` is called once a second by the owner.

    `run` is this attempt's random id. After `acquire`, `fold` is the journal before it; `token_ids` and `pieces` are
    the accepted prefix, later our own too, the first `confirmed` of them known to be stored; `previous_fingerprint` is
    that of the model which wrote the prefix's last token. `has_ended`: fenced by an end that is stored, so that the
    delivery may be acked; by anything else that fences, it may not. `is_unheard`: nobody is left to read the answer,
    and the request has been ended for that. Raises ValueError on ids that are not valid.
    """

    _keeps_dead_letters_whole = True

    def __init__(
        self,
        connection: Connection,
        request: Addressed,
        lease: Lease,
        *,
        worker_id: str,
        fingerprint: str,
        poison_after: int = 3,
    ) -> None:
        self._connection = connection
        self._request_id = request.request_id
        self._subjects = journal(request.edge, request.request_id)
        self._lease = lease
        self._worker_id = worker_id
        self._fingerprint = fingerprint
        self._poison_after = poison_after
        self._seq = 0
        self._is_settled = False
        self._lock = asyncio.Lock()
        self.run = secrets.token_hex(8)
        self.fold = Fold()
        self.previous_fingerprint: str | None = None
        self.is_fenced = False
        self.has_ended = False
        self.is_unheard = False
        self.confirmed = 0
        self.token_ids: list[int] = []
        self.pieces: list[str] = []

    async def look(self) -> Takeover:
        """What a claim would find now. Claims nothing, and a replica that lags may answer: a hint.

        Raises BrokerUnavailable.
        """
        records = await read_records(self._connection, STREAM_TOKENS, self._subjects.all, is_complete=lambda _: True)
        return judge(records, self._poison_after)

    async def acquire(self) -> ClaimOutcome:
        """Claim the request and find out what was generated before.

        Raises BrokerUnavailable; the delivery is then left alone.
        """
        deadline = time.monotonic() + _ACQUIRE_S
        last = 0
        while not await self._claim(last, deadline):
            record = await self._last_run_record()
            last = record.seq if record is not None else 0
            event = decode_record(record) if record is not None else None
            if isinstance(event, Started) and event.run == self.run:
                self._seq = last  # the answer to our first try was lost
                break
            if event is not None and not isinstance(event, (Started, Released)):
                return ClaimOutcome.SETTLED
            if time.monotonic() > deadline:
                raise BrokerUnavailable("the claim stays contested")
        else:
            if last == 0:
                return ClaimOutcome.FRESH
        return await self._adopt(await self._read_before())

    async def delta(self, token_ids: Sequence[int], pieces: Sequence[str]) -> None:
        """Append tokens and send them unconfirmed; the next checkpoint brings what gets lost. Nothing when fenced."""
        index = len(self.token_ids)
        self.token_ids += token_ids
        self.pieces += pieces
        # Overdue means that the process was stopped for longer than the lease: a checkpoint has to come first.
        if not self.is_fenced and not self._lease.is_overdue:
            await self._send(Delta(self.run, index, list(token_ids), list(pieces)))

    async def progress(self, num_computed: int, num_prompt: int) -> None:
        """Publish how much of the prompt is computed, unacked."""
        if not self.is_fenced:
            await self._connection.publish(
                self._subjects.ev, encode_event(Progress(self.run, num_computed, num_prompt))
            )

    async def checkpoint(self) -> bool:
        """Store all tokens so far for sure, then renew the lease. False: fenced, drop everything, say nothing more.

        Raises BrokerUnavailable after ten seconds; the run may go on, and the next checkpoint brings everything.
        """
        async with self._lock:
            if self._is_settled or self.is_fenced:
                return not self.is_fenced
            return await self._checkpoint()

    async def finish(self, reason: FinishReason, usage: Usage, token_ids: Sequence[int], pieces: Sequence[str]) -> bool:
        """Append the last tokens, write the whole answer and settle the lease. False: fenced.

        Retried until decided, also through a restart of the broker. Raises BrokerUnavailable after a minute: the
        delivery is left alone, and whoever gets it next decides.
        """
        self.token_ids += token_ids
        self.pieces += pieces
        async with self._lock:
            return await self._store_end(Finished(self.run, reason.value, usage, [], [])) and await self._settle()

    async def fail(self, code: ErrorCode, message: str, *, retryable: bool = False, param: str | None = None) -> bool:
        """Write the failure and settle the lease. False: fenced. Raises as `finish` does."""
        async with self._lock:
            failed = Failed(self.run, code.value, message, retryable, param)
            return await self._write(self._subjects.ev, failed, END_S) and await self._settle()

    async def release(self, delay_s: float | None = None, *, is_forgiven: bool = True) -> bool:
        """Store all tokens, say that the run is over, and give the request to another worker. False: fenced.

        Not `is_forgiven`: nothing is said, so that the claim counts among those that came to nothing. Raises
        BrokerUnavailable after ten seconds; the lease then runs out by itself.
        """
        async with self._lock:
            if not await self._save_for_release():
                return False
            if is_forgiven and not await self._write(self._subjects.run, Released(self.run), CHECKPOINT_S):
                return False
            self._is_settled = True
            await self._lease.nak(delay_s)
            return True

    async def poison(self, reason: str) -> bool:
        """Put the request into the dead letter queue, end its journal as poisoned, settle the lease. False: fenced.

        Raises as `finish` does.
        """
        await bury(
            self._connection,
            self._lease,
            self._request_id,
            reason,
            self.fold,
            END_S,
            keeps_body=self._keeps_dead_letters_whole,
        )
        return await self.fail(ErrorCode.POISONED, f"the request was given up: {reason}")

    async def _claim(self, last: int, deadline: float) -> bool:
        """Write our claim behind record `last` of `.run`; False when another record came first."""
        started = Started(self.run, self._worker_id, self._lease.ack_subject, self._fingerprint)
        try:
            ack = await self._connection.publish_acked(
                self._subjects.run,
                encode_event(started),
                expect=Expect(last),
                give_up_s=max(1.0, deadline - time.monotonic()),
            )
        except WrongSequence:
            return False
        self._seq = ack.seq
        return True

    async def _last_run_record(self) -> Record | None:
        return await get_record(self._connection, STREAM_TOKENS, {"last_by_subj": self._subjects.run}, _ACQUIRE_S)

    async def _read_before(self) -> list[Record]:
        """The journal before our claim. What follows the claim can only be ours or an edge's, and is not for us."""

        def has_claim(records: list[Record]) -> bool:
            return any(record.seq == self._seq for record in records)

        records = await read_records(self._connection, STREAM_TOKENS, self._subjects.all, is_complete=has_claim)
        if not has_claim(records):
            raise BrokerUnavailable("the journal does not show our claim")
        return [record for record in records if record.seq < self._seq]

    async def _adopt(self, records: list[Record]) -> ClaimOutcome:
        """Take over what is known of earlier runs."""
        takeover = judge(records, self._poison_after)
        self.fold = takeover.fold
        self.previous_fingerprint = takeover.fingerprint
        if takeover.outcome in (ClaimOutcome.FRESH, ClaimOutcome.CONTINUE):
            self.token_ids = list(self.fold.token_ids)
            self.pieces = list(self.fold.pieces)
            self.confirmed = len(self.token_ids)
        return takeover.outcome

    async def _send(self, delta: Delta) -> None:
        await self._connection.publish(self._subjects.ev, encode_event(delta))

    async def _checkpoint(self) -> bool:
        if not await self._store_tokens(CHECKPOINT_S):
            return False
        if self._lease.needs_renewal:
            await self._lease.renew()
        return True

    async def _save_for_release(self) -> bool:
        return await self._store_tokens(CHECKPOINT_S)

    async def _store_end(self, bare: Finished) -> bool:
        whole = bare._replace(token_ids=self.token_ids, pieces=self.pieces)
        try:
            return await self._write(self._subjects.ev, whole, END_S)
        except PayloadTooLarge:
            # Confirmed deltas hold the same tokens in order, so that nothing needs healing.
            return await self._store_tokens(END_S) and await self._write(self._subjects.ev, bare, END_S)

    async def _store_tokens(self, give_up_s: float) -> bool:
        """Write everything since the last confirmed token. Also when there is none: the write proves the claim."""
        while True:
            start = self.confirmed
            end = min(len(self.token_ids), start + MAX_DELTA_TOKENS)
            event = Delta(self.run, start, self.token_ids[start:end], self.pieces[start:end])
            if not await self._write(self._subjects.ev, event, give_up_s):
                return False
            self.confirmed = end
            if end == len(self.token_ids):
                return True

    async def _write(self, subject: str, event: Event, give_up_s: float) -> bool:
        """Store a record if our claim still is the last one. False, and fenced from then on, if it is not."""
        if self.is_fenced or self._is_settled:
            return False
        payload = encode_event(event)
        deadline = time.monotonic() + give_up_s
        while True:
            left = deadline - time.monotonic()
            try:
                expect = Expect(self._seq, self._subjects.run)
                await self._connection.publish_acked(subject, payload, expect=expect, give_up_s=left)
                return True
            except WrongSequence as error:
                last = await self._last_run_event()
                if last == event:
                    return True  # stored, only the answer was lost
                if last is None and not self._lease.is_overdue:
                    await self._claim_again(deadline)
                elif not self._is_mine(last):
                    self.is_fenced = True
                    self.has_ended = isinstance(last, (Cancelled, Failed))
                    _log.info("run %s of request %s is fenced by %s", self.run, self._request_id, type(last).__name__)
                    return False
                failure: WrongSequence | StreamFull = error
            except StreamFull as error:
                failure = error
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the journal cannot be written: {failure}") from failure
            await asyncio.sleep(_RETRY_S if isinstance(failure, WrongSequence) else 10 * _RETRY_S)

    async def _claim_again(self, deadline: float) -> None:
        """The stream was full and has dropped its oldest records, our claim among them: write it and the tokens anew.

        Only while the lease is ours for sure: nobody else can have claimed, finished and been dropped by then.
        """
        if await self._claim(0, deadline):
            _log.warning("the journal of request %s was dropped and is written again", self._request_id)
            await self._restore_tokens(deadline)

    async def _restore_tokens(self, deadline: float) -> None:
        """Write again what was confirmed. What was not comes with the next checkpoint."""
        for start in range(0, self.confirmed, MAX_DELTA_TOKENS):
            end = min(self.confirmed, start + MAX_DELTA_TOKENS)
            event = Delta(self.run, start, self.token_ids[start:end], self.pieces[start:end])
            if not await self._write(self._subjects.ev, event, deadline - time.monotonic()):
                return

    async def _last_run_event(self) -> Event | None:
        record = await self._last_run_record()
        return decode_record(record) if record is not None else None

    def _is_mine(self, event: Event | None) -> bool:
        """Whether the last record of `.run` is our claim."""
        return isinstance(event, Started) and event.run == self.run

    async def _settle(self) -> bool:
        self._is_settled = True
        try:
            await self._lease.ack()
        except BrokerUnavailable as error:
            # The terminal event is stored: the next worker finds it and acks.
            _log.warning("request %s: %s", self._request_id, error)
        return True
