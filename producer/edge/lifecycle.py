"""The life of a call after it was accepted: readers come and go, somebody leaves, it ends, it is put away."""

import asyncio
import time
from collections.abc import Callable

import structlog

from broker.errors import BrokerError
from broker.journal import JournalHub
from broker.transitions import Transitions
from broker.work_queue import WorkQueue
from producer.audit.audit import Audit
from producer.edge.audited import note_ended_call
from producer.edge.background import Background
from producer.edge.calls import Call, LiveCalls, OnDisconnect, Part
from producer.edge.errors import NOT_SUBMITTED, error_of
from producer.edge.kept import KeptAnswers
from producer.edge.rates import ServiceRates
from producer.edge.retention import Retention
from producer.edge.spans import note_answer, note_run
from producer.metrics import OK, EdgeMetrics
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled, Failed, Finished

_log = structlog.stdlib.get_logger("inferflux.edge")

KEY_ENDED = "The API key of this request holds no longer: it was revoked, replaced, or has expired."
# How long somebody who asks for a cancellation waits for the broker to record it.
RECORD_S = 5.0


class Lifecycle:
    """One log line, one count and one broker transition for each step of a call."""

    def __init__(
        self,
        hub: JournalHub,
        queue: WorkQueue,
        transitions: Transitions,
        calls: LiveCalls,
        kept: KeptAnswers,
        retention: Retention,
        rates: ServiceRates,
        metrics: EdgeMetrics,
        background: Background,
        audit: Audit,
    ) -> None:
        self._hub = hub
        self._queue = queue
        self._transitions = transitions
        self._calls = calls
        self._kept = kept
        self._retention = retention
        self._rates = rates
        self._metrics = metrics
        self._background = background
        self._audit = audit

    def accepted(self, call: Call) -> None:
        labels = {"labels": call.labels} if call.labels else {}
        self._note(call, "accepted", parts=len(call.parts), readers=call.num_readers, **labels)

    def attach(self, call: Call) -> None:
        call.num_readers += 1

    def resumed(self, call: Call, last_event_id: str | None) -> None:
        self._note(call, "resumed", behind=last_event_id or "", readers=call.num_readers)

    def detach(self, call: Call, *, left: bool, on_disconnect: OnDisconnect | None = None) -> None:
        """A reader is done. The last one that left takes the work with it, unless it asked for the work to go on.

        `on_disconnect` is what this reader asked for, None if that is what the call asked for.
        """
        call.num_readers -= 1
        if call.num_readers > 0:
            return
        if left and not call.is_over and (on_disconnect or call.on_disconnect) is OnDisconnect.CANCEL:
            self.cancel(call, "client_left")
        self.settle(call)

    def reader_cut(self, call: Call) -> None:
        """A reader was too slow and is cut off. Unlike one that left it takes nothing with it."""
        self._metrics.slow_readers.inc()
        self._note(call, "reader_cut")

    def cancel(self, call: Call, reason: str) -> None:
        """End what is open of a call, in the background: in the journal, at the worker and in the queue."""
        if call.cancelled:
            return
        call.cancelled = True
        self._note(call, "cancelled", reason=reason)
        for part in call.open_parts():
            self.end_part(part, Cancelled(reason))

    async def record_cancellation(self, call: Call, reason: str) -> None:
        """End what is open of a call, for somebody who wants to know that it is done. Raises BrokerUnavailable."""
        await asyncio.gather(*(self._record_end(part, Cancelled(reason), RECORD_S) for part in call.open_parts()))
        if not call.cancelled:
            call.cancelled = True
            self._note(call, "cancelled", reason=reason)

    def expire(self, call: Call) -> None:
        """The deadline has passed."""
        if call.deadline_noted:
            return
        call.deadline_noted = True
        seconds = call.deadline_at - call.accepted_at
        message = f"The request was not finished within {seconds:g} s."
        self._note(call, "deadline_exceeded")
        for part in call.open_parts():
            self.end_part(part, Failed(None, str(ErrorCode.DEADLINE_EXCEEDED), message, False))

    def revoke(self, call: Call) -> None:
        """The key that the call was made with holds no longer: its readers are told, and its work ends."""
        if call.is_revoked or call.is_over:
            return
        call.is_revoked = True
        self._note(call, "key_revoked")
        for part in call.open_parts():
            self.end_part(part, Failed(None, str(ErrorCode.INVALID_API_KEY), KEY_ENDED, False))

    def end_part(self, part: Part, event: Cancelled | Failed) -> None:
        self._background.spawn(self._end_part(part, event), f"end {part.request_id}")

    async def _end_part(self, part: Part, event: Cancelled | Failed) -> None:
        try:
            await self._record_end(part, event)
        except BrokerError as error:
            _log.warning("end not recorded", request_id=part.request_id, error=str(error))

    async def _record_end(self, part: Part, event: Cancelled | Failed, give_up_s: float = 10.0) -> None:
        try:
            await self._hub.end(part.edge, part.request_id, event, give_up_s=give_up_s)
        finally:
            if part.view.fold.started is None:
                await self._withdraw(part)

    def forget(self, part: Part) -> None:
        """Drop the journal of a part that never came into the queue: nobody was promised it."""
        self._retention.drop(part.edge, part.request_id, NOT_SUBMITTED)

    async def _withdraw(self, part: Part) -> None:
        seq, part.seq = part.seq, None
        if seq is None:
            return
        try:
            await self._queue.withdraw(seq)
        except BrokerError as error:
            _log.warning("request not withdrawn", request_id=part.request_id, error=str(error))

    def note_starts(self, call: Call) -> None:
        for part in call.parts:
            note_run(call, part)
            if part.note_start() and not call.is_followed and part.started is not None and part.started_at is not None:
                waited = part.started_at - call.accepted_at
                self._metrics.started(call.model, call.priority, waited)
                self._rates.note_start(call.model, call.priority)
                self._step(call, "started", worker=part.started.worker, waited_s=round(waited, 3))

    def note_first_token(self, call: Call) -> None:
        if call.first_token_at is not None:
            return
        self.note_starts(call)
        if not call.has_tokens:
            return
        call.first_token_at = time.monotonic()
        if call.is_followed:
            return
        waited = call.first_token_at - call.accepted_at
        self._metrics.first_token(call.model, call.priority, waited, call.span.trace_id)
        call.span.event("first_token")
        self._step(call, "first_token", waited_s=round(waited, 3))

    def settle(self, call: Call) -> None:
        """Put the call away once it is over and nobody reads it. May be called at any time."""
        if call.retired or call.num_readers > 0 or not (call.is_over or call.failure is not None):
            return
        if not call.is_counted:
            call.is_counted = True
            if call.bill is not None:
                call.bill()
            if not call.is_followed:
                self.note_starts(call)
                self.note_first_token(call)
                self._count(call)
            for part in call.parts:
                self._put_away(call, part)
        if self._kept.keep(call):
            return
        call.retired = True
        self._calls.remove(call)
        call.close()

    def _put_away(self, call: Call, part: Part) -> None:
        if not call.is_followed:
            self._background.spawn(self._queue.release_body(part.request_id), f"release {part.request_id}")
        if part.started is None and part.seq is not None:
            # Ended from elsewhere before a worker had it.
            self._background.spawn(self._withdraw(part), f"withdraw {part.request_id}")
        is_last_reader = call.idempotency_key is None or call.is_stored
        if call.delivered and is_last_reader and isinstance(part.view.fold.terminal, Finished | Failed):
            self._retention.drop(part.edge, part.request_id)
        elif not call.is_followed:
            # Not delivered for sure: with an idempotency key the client says that it may ask again. A cancelled journal
            # stays for now as well, since whoever still holds the work must find out.
            self._retention.keep_for_resume(part.edge, part.request_id)

    def _count(self, call: Call) -> None:
        code, num_tokens = OK, 0
        for part in call.parts:
            terminal = part.view.fold.terminal
            num_tokens += part.view.fold.length
            if isinstance(terminal, Finished):
                # Until its last record; its readers may have taken longer.
                if part.started_at is not None and part.view.last_activity > part.started_at:
                    self._rates.note(call.model, part.view.last_activity - part.started_at)
            elif isinstance(terminal, Failed | Cancelled):
                code = str(error_of(terminal).code)
        if call.failure is not None and code == OK:
            code = str(call.failure.code)
        duration = time.monotonic() - call.accepted_at
        self._metrics.ended(call.header.endpoint, call.model, code, duration, call.span.trace_id)
        note_answer(call, code)
        note_ended_call(self._audit, call, code, num_tokens, duration)
        self._note(call, "ended", outcome=code, tokens=num_tokens, duration_s=round(duration, 3), **_path_of(call))

    def _step(self, call: Call, event: str, /, **facts: object) -> None:
        """A step on the way to the first token, where a line in the log would delay it; the line of the end has it."""
        self._tell(_log.debug, call, event, **facts)

    def _note(self, call: Call, event: str, /, **facts: object) -> None:
        self._tell(_log.info, call, event, **facts)

    def _tell(self, log: Callable[..., None], call: Call, event: str, /, **facts: object) -> None:
        elapsed = round(time.monotonic() - call.accepted_at, 4)
        log(
            event,
            request_id=call.request_id,
            model=call.model,
            priority=str(call.priority),
            owner=call.identity.owner,
            elapsed_s=elapsed,
            **facts,
        )
        numbers = {name: value for name, value in facts.items() if isinstance(value, int | float | str)}
        whose = {"model": call.model, "priority": str(call.priority)}
        self._transitions.note(call.request_id, event, **whose, elapsed_s=elapsed, **numbers)

    def fail_locally(self, call: Call, error: ServingError) -> None:
        """End a call that the journal cannot end: its readers are told, the work is left to others."""
        call.failure = call.failure or error
        self.settle(call)


def _path_of(call: Call) -> dict[str, object]:
    """By which worker, and how long the call took to its first token; empty of what did not come to that."""
    path: dict[str, object] = {}
    if (started := next((part.started for part in call.parts if part.started is not None), None)) is not None:
        path["worker"] = started.worker
    if call.first_token_at is not None:
        path["first_token_s"] = round(call.first_token_at - call.accepted_at, 4)
    return path
