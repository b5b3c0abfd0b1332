"""What one model of a worker takes from the queue: it asks for as many requests as it can start now, and runs each.

Credit is free sequences. Waiting happens in the queue, where it is visible and ordered. Only who gave his place to
another waits in here, and keeps lease and claim meanwhile; as many as there are sequences at most.
"""

import asyncio
import logging
import time
from collections import deque

from broker.backlog import unsettled
from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.errors import BlobMissing, BrokerError, StreamFull
from broker.headers import REQUEST_ID
from broker.lease import Lease
from broker.pull import PullLoop
from broker.transitions import Transitions
from schemas.codec import CodecError
from schemas.control import ServedModel
from schemas.errors import ErrorCode, ServingError
from schemas.events import Usage
from schemas.requests import PriorityClass, Prompt
from schemas.tracing import NO_TRACER, Tracer
from schemas.worker_orders import CacheStatus, ModelStatus, PageState
from workers.config import WorkerConfig, WorkerModel
from workers.engine.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.inbox import Freed
from workers.engine.messages import Emission
from workers.metrics import EngineTotals, WorkerMetrics
from workers.probation import Probation
from workers.runners.base import Opened
from workers.runners.registry import create_runner
from workers.session import Session, SessionContext
from workers.warming import Warming

log = logging.getLogger("inferflux.worker")

TICK_S = 0.25
# While the broker is away finished requests wait to be settled; beyond this many, nothing more is taken.
MAX_SETTLING = 256
# A request that cannot be claimed, since the broker's storage is full, is tried again after this.
NO_ROOM_DELAY_S = 1.0
# What was given back for later counts as ours for as long, and until the next worker surely has it.
TAKEN_AGAIN_S = 0.5
BACKLOG_POLL_S = 0.25
LATECOMERS_S = 2.0


class Intake:
    """Engine, pull loop and sessions of one model. Lives on the event loop; the engine has its own thread."""

    def __init__(
        self,
        connection: Connection,
        transitions: Transitions,
        config: WorkerConfig,
        model: WorkerModel,
        metrics: WorkerMetrics,
        probation: Probation,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.model_id = model.spec.model_id
        self._connection = connection
        self._transitions = transitions
        self._config = config
        self._model = model
        self._metrics = metrics
        self._probation = probation
        self._tracer = tracer
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(
            create_runner(model.backend),
            model.spec,
            EngineConfig(max_output_tokens=model.max_output_tokens, fairness=config.fairness, kv=config.kv),
            self._emitted,
            on_step=metrics.step_observer(self.model_id),
        )
        metrics.for_model(self.model_id)
        self._totals = EngineTotals(metrics, self.model_id)
        self._warming = Warming(self._engine)
        self._opened: Opened | None = None
        self._sessions: dict[str, Session] = {}
        self._num_reading = 0
        self._leases: set[Lease] = set()
        self._emissions: deque[list[Emission]] = deque()
        self._has_emissions = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pull: PullLoop | None = None
        self._is_draining = False
        self._is_retired = False
        self._is_held = False
        self._failure: str | None = None

    @property
    def slots(self) -> int:
        return self._engine.slots

    @property
    def credit(self) -> int:
        """How many requests could start now."""
        if not self._is_taking:
            return 0
        free = self.slots - sum(session.occupies_slot for session in self._sessions.values())
        # The engine has none while a sequence in it waits for KV: another would wait behind it, unseen by the queue.
        return max(0, min(free, self._engine.free_slots) - self._num_reading)

    def places(self, priority: PriorityClass) -> int:
        """How many more of a class could start now in the place of others, which then wait in the engine."""
        if not self._is_taking:
            return 0
        busy = sum(session.occupies_slot for session in self._sessions.values())
        coming = self._num_reading + max(0, busy - self._engine.num_inside)
        return max(0, self._engine.places(priority) - coming)

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was delivered is in hand."""
        return not any(task.get_name() == "serve" for task in self._tasks)

    @property
    def request_ids(self) -> list[str]:
        """Requests in hand."""
        return [session.request.request_id for session in self._sessions.values()]

    @property
    def trouble(self) -> str | None:
        """Why this model cannot be served any more: a broken backend, a step that never ends, a task of ours gone."""
        if self._failure is not None:
            return self._failure
        if self._engine.broken is not None:
            return self._engine.broken
        if self._engine.is_stuck(time.monotonic(), self._config.stuck_step_s):
            return f"a step of {self.model_id} has not ended for {self._config.stuck_step_s:g} s"
        return None

    async def open(self) -> ServedModel:
        """Load the model on the engine's thread and take what waits for it. Raises RunnerError."""
        self._engine.start()
        # Shielded: the engine's thread must find its future as it left it.
        self._opened = await asyncio.shield(asyncio.wrap_future(self._engine.opened))
        for name, work in (("dispatch", self._dispatch()), ("tick", self._tick())):
            task = asyncio.create_task(work, name=name)
            self._keep(task)
            task.add_done_callback(self._note_failure)
        self.export_gauges()  # there for whoever looks before the first tick
        return self.served()

    async def pull(self) -> None:
        """Begin to take requests."""
        self._pull = PullLoop(
            self._connection,
            self.model_id,
            worker_id=self._config.worker_id,
            on_lease=self._take,
            credit=lambda: self.credit,
            places=self.places if self._config.fairness.is_on else None,
            lanes=self._config.lanes,
        )
        await self._pull.start()

    async def in_hand(self) -> set[int]:
        """Stream sequences of what was delivered to this worker and not settled, claimed or not."""
        if self._pull is not None:
            await self._pull.handed_over()
        return {lease.stream_seq for lease in self._leases}

    def hold(self, *, is_held: bool) -> None:
        """Take nothing new, what is on its way included, and go on with what is here; or take again."""
        self._is_held = is_held
        if self._pull is not None:
            self._pull.wake()

    async def clear_cache(self) -> Freed:
        """Drop the KV that nobody uses. Raises ServingError when the engine ends."""
        try:
            return await asyncio.wrap_future(self._engine.clear_cache())
        except RuntimeError as error:
            raise ServingError(ErrorCode.NO_WORKER, str(error), retryable=True) from None

    async def warm(self, prompt: Prompt, tenant: str) -> Usage:
        """Compute a prompt for later requests. Raises ServingError."""
        if not self._config.kv.is_cached:
            message = f"the worker {self._config.worker_id} keeps no prompts: its prefix cache is off"
            raise ServingError(ErrorCode.UNSUPPORTED_PARAMETER, message)
        return await self._warming.warm(prompt, tenant)

    def status(self) -> ModelStatus:
        stats, running = self._engine.stats(), self._num_running
        free = stats.kv_budget_tokens - stats.kv_reserved_tokens - stats.kv_cached_tokens
        tokens: dict[PageState, int] = {
            "used": stats.kv_used_tokens,
            "reserved": stats.kv_reserved_tokens,
            "cached": stats.kv_cached_tokens,
            "free": max(0, free),
        }
        return ModelStatus(
            id=self.model_id,
            slots=self.slots,
            busy=running,
            waiting=stats.waiting,
            free=self.credit,
            cache=CacheStatus(
                enabled=self._config.kv.is_cached,
                scope=self._config.kv.scope.value,
                page_size=stats.kv_page_tokens,
                pages={name: -(-number // stats.kv_page_tokens) for name, number in tokens.items()},
                cached_tokens=stats.kv_cached_tokens,
                entries=stats.kv_cached_entries,
                hits=stats.prefix_hits_total,
                misses=stats.prefix_misses_total,
                matched_tokens=stats.prefix_matched_tokens_total,
                evictions=stats.prefix_evictions_total,
            ),
        )

    def retry(self) -> None:
        """Its queue is there now."""
        if self._pull is not None:
            self._pull.retry()

    def served(self) -> ServedModel:
        assert self._opened is not None, "not open"
        facts, capabilities = self._opened
        return ServedModel(
            id=self.model_id,
            backend=self._model.backend,
            reason=self._model.reason,
            fingerprint=facts.fingerprint,
            context=capabilities.max_tokens_per_handle,
            slots=self.slots,
            max_token_bytes=facts.max_token_bytes,
            bytes_per_token=facts.bytes_per_token,
            has_chat_template=facts.chat_template is not None,
        )

    def cancel(self, request_id: str) -> None:
        """The client left: free the sequence before its next step."""
        for session in self._sessions.values():
            if session.request.request_id == request_id:
                session.cancel()

    async def save_all(self) -> None:
        """Checkpoint everything now: after a reconnection, unacked deltas may be missing from the journal."""
        await asyncio.gather(*(session.save_now() for session in list(self._sessions.values())))

    async def drain(self) -> None:
        """Stop asking, hand all unfinished work back, wait until what is finished is settled."""
        self._is_draining = True
        suspects = self._engine.in_flight if self.trouble is not None else frozenset()
        stopping = asyncio.create_task(self._pull.stop()) if self._pull is not None else None
        sessions = list(self._sessions.values())
        await asyncio.gather(*(session.hand_back(is_forgiven=session.job not in suspects) for session in sessions))
        if stopping is not None:
            await stopping
        while serving := [task for task in self._tasks if task.get_name() == "serve"]:
            await asyncio.wait(serving)

    async def retire(self) -> None:
        """Stop asking, and return when all that was taken has ended. What is only being read goes back.

        Its gauges are another's from now on.
        """
        self._is_draining = self._is_retired = True
        if self._pull is not None:
            await self._pull.stop()
        while serving := [task for task in self._tasks if task.get_name() == "serve"]:
            await asyncio.wait(serving)

    async def run_empty(self) -> None:
        """Go on until nothing waits in its queue and nobody has anything of it: for a model that was unloaded.

        Requests that an edge let in just before may still be on their way, so it is looked at for a while.
        """
        looked_from = self._loop.time()
        while True:
            await asyncio.sleep(BACKLOG_POLL_S)
            try:
                is_empty = await unsettled(self._connection, self.model_id, lanes=self._config.lanes) == 0
            except BrokerError as error:
                log.info("the queue of %s cannot be seen: %s", self.model_id, error)
                continue
            if is_empty and self._loop.time() - looked_from > LATECOMERS_S:
                return

    async def close(self, *, join_engine: bool = True) -> None:
        """End the engine. `join_engine` false leaves a thread that hangs in a step to the end of the process."""
        self._warming.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if join_engine:
            await asyncio.to_thread(self._engine.close)

    def export_gauges(self) -> None:
        """Refresh the gauges that show a state rather than count events."""
        stats, running = self._engine.stats(), self._num_running
        self._totals.export(stats)
        if self._is_retired:
            return
        self._metrics.worker_slots.labels(self.model_id, "busy").set(running)
        self._metrics.worker_slots.labels(self.model_id, "free").set(self.slots - running)
        self._metrics.worker_slots.labels(self.model_id, "waiting").set(stats.waiting)
        self._metrics.kv_pages.labels(self.model_id, "used").set(stats.kv_used_tokens)
        self._metrics.kv_pages.labels(self.model_id, "reserved").set(stats.kv_reserved_tokens)
        self._metrics.kv_pages.labels(self.model_id, "cached").set(stats.kv_cached_tokens)
        free = stats.kv_budget_tokens - stats.kv_reserved_tokens - stats.kv_cached_tokens
        self._metrics.kv_pages.labels(self.model_id, "free").set(max(0, free))
        self._metrics.broker_up.set(self._connection.is_connected)

    @property
    def _is_taking(self) -> bool:
        return not (self._is_draining or self._is_held) and len(self._sessions) < self.slots + MAX_SETTLING

    @property
    def _num_running(self) -> int:
        """Sequences that have a place in the engine."""
        busy = sum(session.occupies_slot for session in self._sessions.values())
        return max(0, min(self.slots, busy - self._engine.stats().waiting))

    def _take(self, lease: Lease) -> None:
        self._num_reading += 1
        self._leases.add(lease)
        if lease.num_delivered > 1:
            self._metrics.redeliveries.labels(self.model_id).inc()
        task = asyncio.create_task(self._serve(lease), name="serve")
        task.add_done_callback(lambda _: self._let_go(lease))
        self._keep(task)

    def _let_go(self, lease: Lease) -> None:
        """Settled, given back, or left to whoever asks for it."""
        if lease.delay_s:
            self._loop.call_later(lease.delay_s + TAKEN_AGAIN_S, self._leases.discard, lease)
        else:
            self._leases.discard(lease)

    async def _serve(self, lease: Lease) -> None:
        try:
            session = await self._read(lease)
        finally:
            self._num_reading -= 1
        if session is None:
            return
        if self._is_draining:  # it was being read when the drain began
            await lease.nak()
            session.trace.end("released")
            return
        self._sessions[session.run_id] = session
        try:
            await session.run()
        except StreamFull as error:
            log.warning("no room to claim a request: %s", error, extra={"request_id": session.request.request_id})
            await lease.nak(NO_ROOM_DELAY_S)
        except BrokerError as error:
            # The lease is left alone: unless somebody else claims the request, it is delivered again.
            log.warning("gave up on a request: %s", error, extra={"request_id": session.request.request_id})
        finally:
            session.leave()
            session.trace.end("abandoned")
            del self._sessions[session.run_id]
            if self._pull is not None:
                self._pull.wake()

    async def _read(self, lease: Lease) -> Session | None:
        """The session of a delivery; None after refusing one that cannot be read."""
        try:
            return Session(self._context(), lease, await lease.request())
        except CodecError as error:
            refusal = ServingError(ErrorCode.INVALID_PARAMETER, f"the request cannot be read: {error}")
        except BlobMissing as error:
            # The broker had it whole and has lost it. Sent again, it comes with its body.
            refusal = ServingError(ErrorCode.INTERNAL, f"the request's body is lost: {error}", retryable=True)
        log.error(
            "refused what came on %s: %s", lease.subject, refusal, extra={"request_id": lease.headers.get(REQUEST_ID)}
        )
        await self._refuse(lease, refusal)
        return None

    async def _refuse(self, lease: Lease, error: ServingError) -> None:
        """End a request without a body. Its headers say whose journal to tell, when they are there at all."""
        try:
            ref = lease.ref()
        except CodecError:
            await lease.term()
            return
        claim = Claim(self._connection, ref, lease, worker_id=self._config.worker_id, fingerprint="")
        if await claim.acquire() is not ClaimOutcome.SETTLED:
            await claim.fail(error.code, error.message, retryable=error.retryable)
        else:
            await lease.ack()

    def _context(self) -> SessionContext:
        assert self._opened is not None, "not open"
        return SessionContext(
            connection=self._connection,
            transitions=self._transitions,
            engine=self._engine,
            worker_id=self._config.worker_id,
            fingerprint=self._opened.facts.fingerprint,
            on_dead_letter=lambda reason: self._metrics.dead_letters.labels(self.model_id, reason).inc(),
            probation=self._probation,
            tracer=self._tracer,
        )

    def _emitted(self, emissions: list[Emission]) -> None:
        """Called on the engine thread, once a step."""
        self._loop.call_soon_threadsafe(self._arrived, emissions)

    def _arrived(self, emissions: list[Emission]) -> None:
        self._emissions.append(emissions)
        self._has_emissions.set()

    async def _dispatch(self) -> None:
        """Hand emissions to their sessions in order. One task for all: a task per token and session costs more."""
        while True:
            await self._has_emissions.wait()
            self._has_emissions.clear()
            was_full = self.credit == 0
            while self._emissions:
                for emission in self._emissions.popleft():
                    if self._warming.take(emission):
                        continue
                    session = self._sessions.get(emission.request_id.partition(".")[0])
                    if session is not None:
                        await session.take(emission)
            if was_full and self._pull is not None and self.credit:
                self._pull.wake()

    async def _tick(self) -> None:
        """Checkpoints, lease renewals and deadlines of all sessions."""
        while True:
            await asyncio.sleep(TICK_S)
            for session in list(self._sessions.values()):
                if session.is_past_deadline:
                    session.expire()
                elif session.is_checkpoint_due:
                    self._keep(asyncio.create_task(session.save_now()))
            self.export_gauges()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        """Without these tasks nothing reaches a journal: the worker has to go, not only the task."""
        if not task.cancelled():
            self._failure = f"the {task.get_name()} task of {self.model_id} ended: {task.exception()!r}"

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended: %r", task.get_name(), error, exc_info=error)
