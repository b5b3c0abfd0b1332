"""Steps that are timed on a loaded model, in small contexts that are gone when the answer is there."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Timer
from typing import NamedTuple, Self

import numpy as np

from workers.runners.base import IntArray, RunnerError
from workers.runners.llama_cpp.abort_flag import AbortFlag
from workers.runners.llama_cpp.context import ContextOptions, LlamaContext
from workers.runners.llama_cpp.library import Library
from workers.runners.llama_cpp.model import LlamaModel
from workers.runners.llama_cpp.sizing import KvPlan
from workers.runners.llama_cpp.tuning import Tuning, untuned
from workers.runners.waiting import MAX_WAITED, RunTime, run_time

# Rows of a step of several. As many sequences can run on any machine.
_ROWS = 8
_SHORT_PROMPT = 32
# Timed in a row, after one that is not: with another number of threads, the first has to make them.
_STEPS = 3
# Token ids that any vocabulary has; none of the first, which are often control tokens.
_FIRST_ID, _NUM_IDS = 300, 200
# From so much computing and waiting on, it is clear who has the processors.
_ENOUGH_NS = 10**8
_ABORTED = 2


class Subject(NamedTuple):
    """What is timed: a model, and how it will be used. `asked_to_stop` is looked at between steps."""

    library: Library
    model: LlamaModel
    kv_type: str
    batch_tokens: int
    asked_to_stop: AbortFlag


class TimedSteps:
    """The `Timings` of a model, for so many seconds: a step that runs when they are over ends early. All contexts are
    closed when it is left. Raises RunnerError when the library makes none, or does not compute.
    """

    def __init__(self, subject: Subject, budget_s: float) -> None:
        self._subject = subject
        self._ends_at = time.monotonic() + budget_s
        self._time_is_up = AbortFlag()
        self._timer = Timer(budget_s, self._time_is_up.set)
        self._contexts = ExitStack()
        self._short: LlamaContext | None = None
        self._prompts: dict[int, LlamaContext] = {}
        self._ran = RunTime(0, 0)

    def __enter__(self) -> Self:
        self._timer.daemon = True
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._contexts.close()

    def room_s(self) -> float:
        return self._ends_at - time.monotonic()

    def is_busy(self) -> bool:
        return self._ran.share_waited > MAX_WAITED

    def decode(self, threads: int) -> float | None:
        return self._steps(self._short_context(threads), 1)

    def batch(self, threads: int) -> float | None:
        context = self._short_context(threads)
        step_s = self._steps(context, min(_ROWS, context.max_batch_tokens))
        prompt_s = None if step_s is None else self._prompt(context)
        return None if step_s is None or prompt_s is None else step_s + prompt_s

    def prompt(self, threads: int) -> float | None:
        return self._prompt(self._short_context(threads))

    def prepare(self, prompt: int, micro_batches: Sequence[int], threads: int) -> None:
        plan = KvPlan(context=prompt, sequences=1, is_unified=False, num_cells=prompt)
        for micro_batch in micro_batches:
            self._prompts[micro_batch] = self._context(plan, Tuning(threads, threads, micro_batch), prompt)

    def prefill(self, micro_batch: int) -> float | None:
        return self._prompt(self._prompts[micro_batch])

    def _short_context(self, threads: int) -> LlamaContext:
        if self._short is None:
            tokens = min(_SHORT_PROMPT, self._subject.batch_tokens)
            plan = KvPlan(context=tokens, sequences=_ROWS, is_unified=True, num_cells=_SHORT_PROMPT * _ROWS)
            self._short = self._context(plan, untuned(threads, tokens), tokens)
        self._short.set_threads(threads, threads)
        return self._short

    def _context(self, plan: KvPlan, tuning: Tuning, batch_tokens: int) -> LlamaContext:
        library, model, kv_type, *_ = self._subject
        options = ContextOptions(plan, kv_type, tuning, batch_tokens, logit_rows=1)
        context = LlamaContext(library, model, options, self._time_is_up)
        self._contexts.callback(context.close)
        return context

    def _steps(self, context: LlamaContext, num_rows: int) -> float | None:
        """A token's time in the fastest of some steps in which so many sequences have a row each."""
        sequences = np.arange(num_rows, dtype=np.int32)
        taken = []
        for position in range(1 + _STEPS):
            seconds = self._step(context, np.full_like(sequences, position), sequences, is_timed=position > 0)
            if seconds is None:
                return None
            taken.append(seconds)
        _clear(context, num_rows)
        return min(taken[1:]) / num_rows

    def _prompt(self, context: LlamaContext) -> float | None:
        """A token's time in a prompt as long as a batch can be."""
        positions = np.arange(context.max_batch_tokens, dtype=np.int32)
        seconds = self._step(context, positions, np.zeros_like(positions))
        _clear(context, 1)
        return None if seconds is None else seconds / len(positions)

    def _step(
        self, context: LlamaContext, positions: IntArray, sequences: IntArray, *, is_timed: bool = True
    ) -> float | None:
        """Seconds; None when that was the last step there may be. In one that is not timed nobody asks who has the
        processors: threads end in it, and with them what the system knows of them.
        """
        tokens = (_FIRST_ID + (positions * 7 + sequences * 13) % _NUM_IDS) % context.vocab_size
        lasts = np.flatnonzero(np.diff(sequences, append=-1))
        before, began = run_time(), time.monotonic()
        code = context.decode(tokens.astype(np.int32), positions, sequences, lasts)
        seconds = max(1e-9, time.monotonic() - began)
        if is_timed:
            self._ran = self._ran.plus(run_time().since(before))
        if code not in (0, _ABORTED):
            raise RunnerError(f"llama_decode failed with code {code}: {context.last_error}")
        return None if code == _ABORTED or self._must_stop() else seconds

    def _must_stop(self) -> bool:
        is_busy = self.is_busy() and sum(self._ran) > _ENOUGH_NS
        return is_busy or self.room_s() <= 0 or self._subject.asked_to_stop.is_set


def _clear(context: LlamaContext, num_sequences: int) -> None:
    for sequence in range(num_sequences):
        context.clear(sequence)
