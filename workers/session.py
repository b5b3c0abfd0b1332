"""One delivered request on its way through this worker: lease, claim and engine sequence under one roof.

    delivered --> claiming --> generating --> settling --> gone
                     |             |             |
                     +-------------+-------------+--> dropped (fenced, cancelled, handed back)

The prompt of a first delivery is computed while the claim is on its way; nothing is published before the claim is
acknowledged. A later delivery is claimed first, so that a prompt which kills the worker leaves a mark, and a suspect
(see `probation`) is not claimed at all while another one is on probation.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from broker.claims import ClaimOutcome
from broker.connection import Connection
from broker.errors import BrokerError
from broker.lease import Lease
from broker.live_claim import claim_for
from broker.transitions import Transitions
from schemas.errors import ErrorCode, ServingError
from schemas.fold import Fold
from schemas.requests import GenerateRequest
from schemas.tracing import Tracer
from workers.engine.engine import Engine
from workers.engine.messages import (
    Completed,
    Emission,
    EngineRequest,
    Errored,
    PrefillProgress,
    Resume,
    Tokens,
)
from workers.probation import Probation
from workers.request_trace import RequestTrace

log = logging.getLogger("inferflux.worker")

CHECKPOINT_EVERY_S = 1.0
# An idle sequence (waiting, or in a long prefill) has nothing to save, but its lease must live: 5 s of its 15.
RENEW_EVERY_S = 5.0
# A takeover that this worker cannot continue (other weights) waits for one that can.
UNFIT_DELAY_S = 1.0
# A suspect that finds another one on probation asks again, here or elsewhere. Delayed deliveries come before new ones.
SUSPECT_DELAY_S = 0.25
# The edge ends a request at its deadline. Should that edge be gone, the worker does, later by what clocks may differ.
DEADLINE_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What every session of a model shares."""

    connection: Connection
    transitions: Transitions
    engine: Engine
    worker_id: str
    fingerprint: str
    on_dead_letter: Callable[[str], None]
    probation: Probation
    tracer: Tracer


class Session:
    """Lives on the event loop, from delivery to settlement. Its owner calls `run` once, `take` with every emission of
    the engine, `save_now` when `is_checkpoint_due`, `expire` when `is_past_deadline`, and at most one of `cancel` and
    `hand_back`.

    `occupies_slot` is false once the engine is done with it: settling with the broker needs no sequence.
    """

    def __init__(self, context: SessionContext, lease: Lease, request: GenerateRequest) -> None:
        self.request = request
        self.occupies_slot = True
        self._context = context
        self._lease = lease
        self._claim = claim_for(
            context.connection,
            request,
            lease,
            worker_id=context.worker_id,
            fingerprint=context.fingerprint,
        )
        self.trace = RequestTrace(context.tracer, request, lease, context.worker_id)
        self._job = f"{self.run_id}.0"
        self._is_claimed = False
        self._is_cancelled = False
        self._is_leaving = False
        self._is_forgiven = True
        # While false, emissions are held: nothing is published before the claim is known to be ours (still).
        self._may_publish = False
        self._held: deque[Emission] = deque()
        self._is_over = asyncio.Event()
        self._delivered_at = time.monotonic()
        self._saved_at = self._delivered_at
        self._is_saving = False
        self._is_settling = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def run_id(self) -> str:
        """Id of the claim. The engine's ids of this sequence are `<run id>.<start>`: a takeover starts a second one."""
        return self._claim.run

    async def run(self) -> None:
        """Claim, generate, settle; returns when this worker has nothing more to do with the request.

        Raises BrokerError when the broker is away for too long to claim: the delivery is then left alone.
        """
        if self.request.deadline_ms <= time.time() * 1000:
            await self._refuse_expired()
            return
        is_first = self._lease.num_delivered == 1  # a hint, which a restart of the broker may get wrong
        if is_first:
            self._submit(None)
        elif await self._must_wait():
            return
        outcome = await self._claim.acquire()
        if self._is_leaving and outcome in (ClaimOutcome.FRESH, ClaimOutcome.CONTINUE):
            await self._claim.release(is_forgiven=self._is_forgiven)
            await self._over("released", tokens=self._claim.confirmed)
        elif self._is_kept_out(outcome, self._claim.fold):
            self.leave()
            await self._claim.release(SUSPECT_DELAY_S)
            await self._over("deferred")
        elif outcome is ClaimOutcome.FRESH:
            if not is_first:
                self._submit(None)
            await self._begin()
        elif outcome is ClaimOutcome.CONTINUE:
            await self._continue()
        else:
            self.leave()
            await self._settle_unclaimed(outcome)
        await self._is_over.wait()
        await asyncio.gather(*self._tasks)

    async def take(self, emission: Emission) -> None:
        """Pass on what the engine produced; late words of a start that was thrown away are dropped."""
        if self._is_over.is_set() or emission.request_id != self._job:
            return
        self.trace.emitted(emission)
        if isinstance(emission, Completed | Errored):
            self.occupies_slot = False
        if self._may_publish and self._lease.is_overdue:
            # This process was stopped or cut off; somebody else may have the request by now.
            self._may_publish = False
            self._spawn(self._check_claim())
        if self._may_publish:
            await self._publish(emission)
        else:
            self._held.append(emission)

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether there is something to save, once a second, or the lease needs a sign of life."""
        if not self._can_save or self._is_saving:
            return False
        age_s = time.monotonic() - self._saved_at
        has_news = len(self._claim.token_ids) > self._claim.confirmed
        return age_s >= (CHECKPOINT_EVERY_S if has_news else RENEW_EVERY_S)

    async def save_now(self) -> None:
        """Checkpoint, if this is a sequence that still runs."""
        if self._can_save:
            await self._checkpoint()

    def cancel(self) -> None:
        """The client left: free the sequence before the next step, then settle if the journal says so too."""
        self.leave()
        self._is_cancelled = True
        if self._can_save:
            self._settle(self._settle_cancelled())

    @property
    def is_past_deadline(self) -> bool:
        """Whether the request ought to have been ended by its edge some time ago."""
        return self._can_save and time.time() > self.request.deadline_ms / 1000 + DEADLINE_GRACE_S

    def expire(self) -> None:
        """End it in the edge's stead."""
        self.leave()
        self._settle(self._fail(ServingError(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed")))

    @property
    def job(self) -> str:
        """The engine's id of this sequence."""
        return self._job

    async def hand_back(self, *, is_forgiven: bool = True) -> None:
        """Give the request back unfinished, for another worker to continue (drain).

        While its claim is on its way, `run` does so when it is there: the next worker must find it written, and not be
        fenced by it later. Not `is_forgiven`: it may be what broke this worker, and three times without a token it is
        poisoned.
        """
        self.leave()
        self._is_leaving = True
        self._is_forgiven = is_forgiven
        if not self._can_save:
            return
        self._is_settling = True
        with contextlib.suppress(BrokerError):  # the lease runs out by itself
            await self._claim.release(is_forgiven=is_forgiven)
        await self._over("released", tokens=len(self._claim.token_ids))

    def leave(self) -> None:
        """Free the engine's sequence, if it still has one, and the place of a suspect."""
        self._context.engine.cancel(self._job)
        self._context.probation.leave(self.run_id)
        self.occupies_slot = False

    async def _must_wait(self) -> bool:
        """Whether this is a suspect that has to wait for another one. It is then given back without a claim: should
        the other one kill this worker, it would count as one more failure of this one.
        """
        found = await self._claim.look()
        if not self._is_leaving and not self._is_kept_out(found.outcome, found.fold):
            return False
        self.leave()
        self._is_over.set()
        self.trace.end("deferred")
        await self._lease.nak(None if self._is_leaving else SUSPECT_DELAY_S)
        log.debug("deferred", extra={"request_id": self.request.request_id})
        return True

    def _is_kept_out(self, outcome: ClaimOutcome, fold: Fold) -> bool:
        is_suspect = outcome in (ClaimOutcome.FRESH, ClaimOutcome.CONTINUE) and fold.claims_without_progress > 0
        return is_suspect and not self._context.probation.enter(self.run_id)

    async def _clear(self) -> None:
        """A suspect has got through. Its tokens are stored before the next one starts, which may kill this worker."""
        if self._can_save and await self._checkpoint():
            self._context.probation.leave(self.run_id)

    def _submit(self, resume: Resume | None) -> None:
        self.trace.submitted()
        self._context.engine.submit(
            EngineRequest(
                request_id=self._job,
                prompt=self.request.prompt,
                sampling=self.request.sampling,
                priority=self.request.priority,
                resume=resume,
                created=self.request.created,
                tenant=self.request.identity.tenant,
            )
        )

    async def _begin(self) -> None:
        self._is_claimed = True
        self._saved_at = time.monotonic()
        self.trace.claimed(self._claim.fold.num_claims + 1)
        self._note("started", resumed=self._claim.confirmed)
        if self._is_leaving:
            return
        if self._is_cancelled:  # after the claim was written, before its acknowledgement came
            self._settle(self._settle_cancelled())
        else:
            await self._open()

    async def _continue(self) -> None:
        """Start again from the journal's prefix. The speculative fresh start is thrown away."""
        self._context.engine.cancel(self._job)
        self._held.clear()
        claim = self._claim
        if claim.token_ids and claim.previous_fingerprint != self._context.fingerprint:
            await claim.release(UNFIT_DELAY_S)
            await self._over("unfit", tokens=len(claim.token_ids))
            return
        self.occupies_slot = True
        self._job = f"{self.run_id}.1"
        self._submit(Resume(list(claim.token_ids), list(claim.pieces)))
        await self._begin()

    async def _open(self) -> None:
        """Publish what was held, in order, then let the rest through."""
        while self._held:
            await self._publish(self._held.popleft())
        self._may_publish = True

    async def _check_claim(self) -> None:
        if await self._checkpoint():
            await self._open()

    async def _publish(self, emission: Emission) -> None:
        match emission:
            case Tokens(token_ids=token_ids, pieces=pieces):
                await self._claim.delta(token_ids, pieces)
                if self._context.probation.holds(self.run_id) and not self._is_saving:
                    self._spawn(self._clear())
            case PrefillProgress(num_computed=num_computed, num_prompt=num_prompt):
                await self._claim.progress(num_computed, num_prompt)
            case Completed():
                self._settle(self._finish(emission))
            case Errored(error=error):
                is_ours = error.retryable and self._context.engine.broken is not None
                self._settle(self._give_up() if is_ours else self._fail(error))

    async def _settle_unclaimed(self, outcome: ClaimOutcome) -> None:
        match outcome:
            case ClaimOutcome.SETTLED:
                await self._lease.ack()
                await self._over("unheard" if self._claim.is_unheard else "settled_before")
            case ClaimOutcome.EXPIRED:
                await self._claim.fail(
                    ErrorCode.JOURNAL_EXPIRED, "the journal no longer holds the beginning of this answer"
                )
                await self._over("journal_expired")
            case ClaimOutcome.POISONED:
                if await self._claim.poison("every worker that took it ended before anything came of it"):
                    self._context.on_dead_letter("poisoned")
                    await self._over("poisoned")
                else:
                    await self._over("fenced")

    async def _refuse_expired(self) -> None:
        """An expired request is never started; its edge normally says so first, and this worker only clears it away."""
        self.occupies_slot = False
        outcome = await self._claim.acquire()
        if outcome in (ClaimOutcome.FRESH, ClaimOutcome.CONTINUE):
            await self._claim.fail(ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the request was started")
            await self._over("expired")
        else:
            await self._settle_unclaimed(outcome)

    async def _finish(self, done: Completed) -> None:
        if await self._claim.finish(done.reason, done.usage, done.token_ids, done.pieces):
            await self._over("finished", reason=done.reason, tokens=done.usage.completion_tokens)
        else:
            await self._lost()

    async def _fail(self, error: ServingError) -> None:
        if await self._claim.fail(error.code, error.message, retryable=error.retryable, param=error.param):
            await self._over("failed", code=error.code)
        else:
            await self._lost()

    async def _give_up(self) -> None:
        """The backend broke, perhaps by this request: another worker goes on, and the claim stays counted."""
        await self._claim.release(is_forgiven=False)
        await self._over("released", tokens=len(self._claim.token_ids))

    async def _settle_cancelled(self) -> None:
        if not await self._claim.checkpoint() and self._claim.has_ended:
            await self._lease.ack()
            await self._over("cancelled", tokens=len(self._claim.token_ids))
        else:  # no record behind the message: nobody may end a request by a core message alone
            await self._claim.release()
            await self._over("released", tokens=len(self._claim.token_ids))

    async def _checkpoint(self) -> bool:
        """False when fenced. A broker that is away does not end a run: the next checkpoint brings everything."""
        self._is_saving = True
        try:
            is_ours = await self._claim.checkpoint()
        except BrokerError as error:
            log.warning("checkpoint failed: %s", error, extra={"request_id": self.request.request_id})
            return True
        finally:
            self._is_saving = False
            self._saved_at = time.monotonic()
        if not is_ours:
            self.leave()
            await self._lost()
        return is_ours

    async def _lost(self) -> None:
        """The claim holds no longer. Behind an end that is stored nobody else needs the delivery."""
        if self._claim.has_ended:
            await self._lease.ack()
        await self._over("unheard" if self._claim.is_unheard else "fenced", tokens=len(self._claim.token_ids))

    @property
    def _can_save(self) -> bool:
        return self._is_claimed and not self._is_over.is_set() and not self._is_settling

    def _settle(self, work: Coroutine[None, None, None]) -> None:
        """Run the one way in which this session ends, without holding up others."""
        self._is_settling = True
        self._spawn(self._settled(work))

    async def _settled(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except BrokerError as error:
            # Unsettled, the delivery comes again, and whoever claims it continues or finds the end in the journal.
            log.warning("not settled: %s", error, extra={"request_id": self.request.request_id})
            await self._over("abandoned", tokens=len(self._claim.token_ids))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _over(self, event: str, **numbers: str | int) -> None:
        """Ends once: a timer, a reconnection and a wake-up may all find the same end."""
        if self._is_over.is_set():
            return
        self.leave()
        self._is_over.set()
        self.trace.end(event)
        self._note(event, **numbers)

    def _note(self, event: str, **numbers: str | int) -> None:
        elapsed_s = round(time.monotonic() - self._delivered_at, 3)
        log.info(event, extra={"request_id": self.request.request_id, "elapsed_s": elapsed_s, **numbers})
        model = self.request.model
        self._context.transitions.note(self.request.request_id, event, model=model, elapsed_s=elapsed_s, **numbers)
