"""One step: schedule, run, commit."""

import logging
import time
from collections.abc import Callable

from schemas.errors import ErrorCode, ServingError
from schemas.events import FinishReason
from workers.engine.admission import Admission
from workers.engine.batch import BatchBuilder, StepPlan
from workers.engine.batch_sampler import draw_together
from workers.engine.config import EngineConfig
from workers.engine.inbox import Freed
from workers.engine.integrity import check_books
from workers.engine.messages import Completed, Emission, EngineRequest, Errored, PrefillProgress, Tokens
from workers.engine.sampler import SamplerScratch
from workers.engine.scheduler import Scheduler
from workers.engine.sequence import Sequence
from workers.engine.stats import EngineStats, StepCounters, StepObserver
from workers.runners.base import FloatArray, ForwardResult, ForwardStatus, ModelRunner, Opened, RunnerError

logger = logging.getLogger(__name__)


class Stepper:
    """All sequences of one opened runner, without threads: `add` and `cancel` go between the steps.

    A step is `schedule`, `forward`, `commit`; what it and `add` produced waits in `take_emissions`. What goes wrong
    with one sequence ends that sequence alone; RunnerError and bugs leave as exceptions.
    """

    def __init__(
        self,
        runner: ModelRunner,
        opened: Opened,
        config: EngineConfig,
        on_step: StepObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        capabilities = opened.capabilities
        budget = capabilities.max_batch_tokens
        if config.max_batch_tokens is not None:
            budget = min(budget, config.max_batch_tokens)
        self._runner = runner
        self._capabilities = capabilities
        self._scratch = SamplerScratch(opened.facts.tokenizer.vocab_size)
        self._admission = Admission(opened, config, self._scratch)
        self._builder = BatchBuilder(budget)
        self._on_step = on_step
        self.counters = StepCounters()
        self._sequences: dict[str, Sequence] = {}
        self._num_arrivals = 0
        self._emissions: list[Emission] = []
        self.scheduler = Scheduler(runner, capabilities, budget, config.fairness, config.kv, clock)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, request: EngineRequest) -> None:
        """Take a request in. One that cannot be served, or has ended already, gets its last word at once."""
        self._num_arrivals += 1
        try:
            sequence = self._admission.prepare(request, self._num_arrivals)
        except RunnerError:
            raise
        except Exception as error:
            self._emissions.append(Errored(request.request_id, _as_serving_error(request.request_id, error)))
            return
        if sequence.reason is not None:
            self._emissions.append(Completed(request.request_id, sequence.reason, sequence.usage, [], []))
            return
        self._sequences[request.request_id] = sequence
        self.scheduler.add(sequence)

    def cancel(self, request_id: str) -> None:
        """Free a sequence, whatever its state, without a word. Unknown ids are ignored."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self.scheduler.finish(sequence)

    def clear_cache(self) -> Freed:
        """Drop the cached KV that nobody uses or waits for."""
        return Freed(*self.scheduler.kv.clear())

    def schedule(self) -> StepPlan:
        """What to compute next; empty only when there is no work. Raises RunnerError when the runner lost handles."""
        plan = self.scheduler.schedule()
        if not plan.items and self.scheduler.has_work:
            raise RunnerError("the runner has no free handle although nothing runs")
        return plan

    def forward(self, plan: StepPlan) -> ForwardResult:
        """Run the plan, made smaller as long as there is no space for it. `NO_SPACE` when nothing was left of it."""
        while True:
            started = time.monotonic()
            result = self._runner.forward(self._builder.build(plan))
            ended = time.monotonic()
            if result.status is ForwardStatus.OK:
                self._note(plan, started, ended)
            if result.status is not ForwardStatus.NO_SPACE:
                return result
            starved = self.scheduler.shrink(plan)
            if starved is not None:
                message = "the model's memory has no room for this request"
                self._fail(starved, ServingError(ErrorCode.INTERNAL, message, retryable=True))
                return result

    def commit(self, plan: StepPlan, result: ForwardResult) -> None:
        """Take the results in: tokens are drawn, sequences end."""
        match result.status:
            case ForwardStatus.OK:
                self._advance(plan, result.logits)
            case ForwardStatus.ABORTED:
                self._roll_back(plan)
            case ForwardStatus.NO_SPACE:
                pass

    def check_integrity(self) -> None:
        """Every handle is free or has one holder. Raises IntegrityError, which no sequence can be blamed for."""
        scheduler = self.scheduler
        check_books(self._runner, self._capabilities, scheduler.kv.held(), scheduler.faults())

    def take_emissions(self) -> list[Emission]:
        """Everything produced since the last call."""
        emissions, self._emissions = self._emissions, []
        return emissions

    def stats(self) -> EngineStats:
        """Safe from any thread; figures of one moment only as far as they need be."""
        counters, scheduler, kv = self.counters, self.scheduler, self.scheduler.kv
        running = list(scheduler.running)
        return EngineStats(
            steps=counters.steps,
            batch_size=counters.batch_size,
            running=len(running),
            waiting=len(scheduler.waiting),
            prompt_tokens_total=counters.prompt_tokens_total,
            completion_tokens_total=counters.completion_tokens_total,
            preemptions_total=scheduler.fairness.num_preemptions,
            yields_total=scheduler.fairness.num_yields,
            resumes_total=scheduler.fairness.num_resumes,
            parked=len(scheduler.parking),
            parked_bytes=scheduler.parking.num_bytes,
            kv_used_tokens=sum(sequence.num_computed for sequence in running),
            kv_reserved_tokens=scheduler.num_reserved,
            kv_cached_tokens=kv.num_cached,
            kv_cached_entries=kv.num_cached_handles,
            kv_budget_tokens=self._capabilities.kv_token_budget,
            kv_page_tokens=self._capabilities.page_size or 1,
            prefix_hits_total=kv.counters.hits,
            prefix_misses_total=kv.counters.misses,
            prefix_matched_tokens_total=kv.counters.matched_tokens,
            prefix_evictions_total=kv.counters.evictions,
            last_step_at=counters.last_step_at,
        )

    def _note(self, plan: StepPlan, started: float, ended: float) -> None:
        self.scheduler.pace.observe(plan.num_decodes, plan.num_prefill, ended - started)
        prompt_tokens = sum(item.num_prompt for item in plan.items)
        completion_tokens = sum(item.wants_logits and not item.sequence.is_prefill_only for item in plan.items)
        self.counters.note(len(plan.items), prompt_tokens, completion_tokens, ended)
        if self._on_step is not None:
            self._on_step(len(plan.items), prompt_tokens, completion_tokens, ended - started)

    def _advance(self, plan: StepPlan, logits: FloatArray | None) -> None:
        for item in plan.items:
            sequence = item.sequence
            sequence.num_computed += item.num_tokens
            if sequence.num_computed < sequence.num_prompt:
                self._emissions.append(PrefillProgress(sequence.request_id, sequence.num_computed, sequence.num_prompt))

        sequences = [item.sequence for item in plan.items if item.wants_logits]
        if sequences:
            assert logits is not None
            drawn = draw_together(logits, sequences, self._scratch)
            for sequence, row, token_id in zip(sequences, logits, drawn, strict=True):
                self._take_token(sequence, row, token_id)

    def _take_token(self, sequence: Sequence, row: FloatArray, token_id: int | None) -> None:
        if sequence.is_prefill_only:
            self._end(sequence)
            self._emissions.append(Completed(sequence.request_id, FinishReason.LENGTH, sequence.usage, [], []))
            return
        try:
            if token_id is None:
                token_id = sequence.sampler.sample(row, sequence.num_output)
            piece = sequence.append(token_id)
        except Exception as error:
            self._fail(sequence, _as_serving_error(sequence.request_id, error))
            return
        if piece.reason is None:
            self._emissions.append(Tokens(sequence.request_id, [token_id], [piece.text]))
            return
        self._end(sequence)
        self._emissions.append(Completed(sequence.request_id, piece.reason, sequence.usage, [token_id], [piece.text]))

    def _roll_back(self, plan: StepPlan) -> None:
        """After an abort some handles may have grown; those that cannot be cut are filled anew."""
        for item in plan.items:
            handle = item.sequence.handle
            assert handle is not None
            if self._capabilities.can_truncate:
                self._runner.truncate(handle, item.sequence.num_computed)
            else:
                self.scheduler.preempt(item.sequence, is_kept=False)

    def _fail(self, sequence: Sequence, error: ServingError) -> None:
        # What went wrong may lie in its KV.
        self._end(sequence, is_kept=False)
        self._emissions.append(Errored(sequence.request_id, error))

    def _end(self, sequence: Sequence, *, is_kept: bool = True) -> None:
        del self._sequences[sequence.request_id]
        self.scheduler.finish(sequence, is_kept=is_kept)


def _as_serving_error(request_id: str, error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    logger.error("request %s failed in the engine", request_id, exc_info=error)
    return ServingError(ErrorCode.INTERNAL, "the engine failed on this request")
