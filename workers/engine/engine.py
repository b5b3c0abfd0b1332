"""The step thread of one model: take commands, schedule, run, commit, emit.

Nothing else touches the runner, from `open` to `close`: OpenMP runtimes throttle once a second thread has entered them.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass
from workers.engine.config import EngineConfig
from workers.engine.inbox import Cancel, ClearCache, Command, Freed, Inbox
from workers.engine.messages import Emission, EngineRequest, Errored
from workers.engine.outbox import Outbox
from workers.engine.stats import EngineStats, StepObserver
from workers.engine.stepper import Stepper
from workers.runners.base import ModelRunner, Opened, RunnerError, RunnerSpec

logger = logging.getLogger(__name__)

# Prompt tokens from which on a step may take much longer than decodes alone.
_LONG_PREFILL = 32

Emit = Callable[[list[Emission]], None]


class Engine:
    """Generates for many requests at once on one runner. Public methods are safe from any thread and never block, but
    `wait_ready` and `close`.

    Every submitted request gets exactly one `Completed` or `Errored`, unless it is cancelled or the engine closed.
    `emit` is called on the engine thread, at most once a step; it must hand over and return. An emission that was on
    its way when `cancel` was called may still arrive: the owner drops what it does not know.

    After a failure of the runner `broken` says why, every request has been answered with a retryable error, and so is
    each new one: the owner is to replace the engine.
    """

    def __init__(
        self,
        runner: ModelRunner,
        spec: RunnerSpec,
        config: EngineConfig,
        emit: Emit,
        *,
        on_step: StepObserver | None = None,
    ) -> None:
        self._runner = runner
        self._spec = spec
        self._config = config
        self._emit = emit
        self._on_step = on_step
        self._inbox = Inbox(runner.abort)
        self._stepper: Stepper | None = None
        self._outbox = Outbox(0.0)
        self._thread = Thread(target=self._main, name=f"engine-{spec.model_id}", daemon=True)
        self._busy_since: float | None = None
        self.opened: Future[Opened] = Future()
        self.broken: str | None = None

    def start(self) -> None:
        """Begin to load the model; `opened` resolves when that is done."""
        self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> Opened:
        """Raises RunnerError when the model does not load, or not in time. In asyncio: `wrap_future(engine.opened)`."""
        try:
            return self.opened.result(timeout_s)
        except TimeoutError:
            raise RunnerError(f"the model was not loaded within {timeout_s} s") from None

    def submit(self, request: EngineRequest) -> None:
        """Raises ValueError when the id is in the engine already, or the engine is closed."""
        self._inbox.submit(request)

    def cancel(self, request_id: str) -> None:
        """Forget a request; its KV is free before the next step. Unknown and ended ids are ignored."""
        self._inbox.cancel(request_id)

    def clear_cache(self) -> Future[Freed]:
        """Drop the cached KV that nobody uses, before the next step. Fails with RuntimeError when the engine ends."""
        return self._inbox.clear_cache()

    def close(self, timeout_s: float = 30.0) -> bool:
        """Stop after the running step, close the runner, end the thread; False when it did not end in time.

        Requests still inside end without a word: cancel or drain them before.
        """
        self._inbox.close()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def slots(self) -> int:
        """How many sequences can run at once; 0 until the model is loaded."""
        stepper = self._stepper
        return 0 if stepper is None else stepper.scheduler.slots

    @property
    def free_slots(self) -> int:
        """How many more requests can start now; 0 while one inside waits for KV, as another would wait behind it."""
        stepper = self._stepper
        if stepper is None or stepper.scheduler.is_blocked:
            return 0
        return max(0, stepper.scheduler.slots - self._inbox.num_live)

    def places(self, priority: PriorityClass) -> int:
        """How many more of a class can start in the place of others, beside what `free_slots` says."""
        stepper = self._stepper
        if stepper is None or not stepper.scheduler.fairness.is_on:
            return 0
        scheduler = stepper.scheduler
        unseen = self._inbox.num_live - len(scheduler.running) - len(scheduler.waiting)
        return max(0, scheduler.num_places(priority) - max(0, unseen))

    @property
    def num_inside(self) -> int:
        """Requests submitted and neither ended nor cancelled."""
        return self._inbox.num_live

    def stats(self) -> EngineStats:
        stepper = self._stepper
        return EngineStats() if stepper is None else stepper.stats()

    @property
    def last_step_at(self) -> float | None:
        """`time.monotonic()` at the end of the last forward pass."""
        stepper = self._stepper
        return None if stepper is None else stepper.counters.last_step_at

    def is_stuck(self, now: float, limit_s: float) -> bool:
        """Whether one turn of the loop has taken longer than `limit_s`. `now` is `time.monotonic()`."""
        since = self._busy_since
        return since is not None and now - since > limit_s

    @property
    def in_flight(self) -> frozenset[str]:
        """The requests of the forward pass that runs now, the suspects if it never ends."""
        return self._inbox.in_flight

    def _main(self) -> None:
        try:
            self._open()
            self._loop()
        finally:
            self._stepper = None
            self._runner.close()

    def _open(self) -> None:
        try:
            opened = self._runner.open(self._spec)
            self._stepper = Stepper(self._runner, opened, self._config, self._on_step)
            self._outbox = Outbox(opened.capabilities.emit_interval_s)
        except Exception as error:
            self.broken = str(error) or repr(error)
            reason = error if isinstance(error, RunnerError) else RunnerError(f"the model does not load: {error!r}")
            self.opened.set_exception(reason)
        else:
            self.opened.set_result(opened)

    def _loop(self) -> None:
        while True:
            self._busy_since = None
            is_idle = self._stepper is None or not self._stepper.has_work
            commands = self._inbox.take(block=is_idle)
            if commands is None:
                return
            self._busy_since = time.monotonic()
            try:
                self._turn(commands)
            except Exception as error:
                self._break(error)
            for command in commands:
                if isinstance(command, ClearCache):
                    command.fail()

    def _turn(self, commands: list[Command]) -> None:
        stepper = self._stepper
        if stepper is None:
            self._refuse_all()
            return
        for command in commands:
            match command:
                case Cancel():
                    stepper.cancel(command.request_id)
                case ClearCache():
                    command.answer(stepper.clear_cache())
                case EngineRequest():
                    stepper.add(command)
        self._step(stepper)
        self._collect(stepper)
        if self._outbox.is_due:
            self._hand_over()
        if not stepper.has_work:
            stepper.check_integrity()

    def _step(self, stepper: Stepper) -> None:
        plan = stepper.schedule()
        if plan.num_prefill > _LONG_PREFILL or not plan.items:
            # A step that may take long, or none at all: nothing waits for its end.
            self._hand_over()
        if not plan.items or not self._inbox.begin_flight(plan.request_ids):
            return
        try:
            result = stepper.forward(plan)
        finally:
            self._inbox.end_flight()
        stepper.commit(plan, result)

    def _break(self, error: Exception) -> None:
        """The runner failed, or we did: nothing of its state can be trusted."""
        logger.error("engine of %s is broken", self._spec.model_id, exc_info=error)
        self.broken = str(error) or repr(error)
        stepper, self._stepper = self._stepper, None
        if stepper is not None:
            self._collect(stepper)
        self._hand_over()
        self._refuse_all()

    def _refuse_all(self) -> None:
        """Answer every request that was taken from the inbox and has no ending yet."""
        error = ServingError(ErrorCode.INTERNAL, "the model stopped working on this worker", retryable=True)
        self._tell([Errored(request_id, error) for request_id in self._inbox.unsettled()])

    def _collect(self, stepper: Stepper) -> None:
        self._outbox.add(stepper.take_emissions(), time.monotonic())

    def _hand_over(self) -> None:
        self._tell(self._outbox.take(time.monotonic()))

    def _tell(self, emissions: list[Emission]) -> None:
        emissions = self._inbox.settle(emissions)
        if emissions:
            self._emit(emissions)
