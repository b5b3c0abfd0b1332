"""The steps that are timed, on any opened runner: the interface's rules are kept, as the engine keeps them."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ops.calibration.verdict import Figures
from workers.runners.base import Batch, Capabilities, ForwardStatus, Handle, ModelRunner, Opened, RunnerError
from workers.runners.waiting import run_time

PROMPT_TOKENS = 32
PREFILL_TOKENS = 256
# Token ids that any vocabulary has; none of the first, which are often control tokens.
_FIRST_ID, _NUM_IDS = 300, 200


class Effort(NamedTuple):
    """How long one figure may take: `steps` at most, and no further step after `seconds`."""

    steps: int = 24
    seconds: float = 1.5


class _Shape(NamedTuple):
    sequences: int
    prompt: int
    steps: int


def measure(
    runner: ModelRunner,
    opened: Opened,
    sequences: int,
    effort: Effort = Effort(),  # noqa: B008 - immutable
    *,
    floor: float = 0.0,
    memory_bytes: Callable[[], int] = lambda: 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Figures:
    """Time prefill, and decode of `sequences` at once, or as many as the runner takes, and of one. On the thread that
    opened the runner. Raises RunnerError, also as soon as it is clear that the score will not come up to `floor`.
    """
    timing = _Timing(runner, opened, effort, clock)
    shape = _shape(opened.capabilities, sequences, effort.steps)
    before = run_time()
    prefill = timing.prefill()
    if prefill < floor:  # no score is above it
        raise RunnerError(f"out of the question with a prefill of {prefill:.0f} tok/s")
    alone = timing.decode(shape._replace(sequences=1))
    decode = alone if shape.sequences == 1 else timing.decode(shape)
    return Figures(
        sequences=shape.sequences,
        prefill=prefill,
        decode_alone=alone,
        decode=decode,
        memory_bytes=memory_bytes(),
        waited=run_time().since(before).share_waited,
    )


def _shape(capabilities: Capabilities, sequences: int, steps: int) -> _Shape:
    limits = (
        sequences,
        capabilities.max_running or capabilities.max_handles,
        capabilities.max_handles,
        capabilities.max_logit_rows,
        capabilities.max_batch_tokens,
        capabilities.kv_token_budget // 2,
    )
    count = max(1, min(limits))
    room = min(capabilities.max_tokens_per_handle, capabilities.kv_token_budget // count)
    prompt = max(1, min(PROMPT_TOKENS, room // 2))
    return _Shape(count, prompt, max(1, min(steps, room - prompt)))


class _Timing:
    def __init__(self, runner: ModelRunner, opened: Opened, effort: Effort, clock: Callable[[], float]) -> None:
        self._runner = runner
        self._capabilities = opened.capabilities
        self._effort = effort
        self._clock = clock
        vocab_size = opened.facts.tokenizer.vocab_size
        self._first_id = _FIRST_ID if vocab_size > _FIRST_ID + _NUM_IDS else 0
        self._num_ids = min(_NUM_IDS, vocab_size)

    def prefill(self) -> float:
        limits = self._capabilities
        count = min(PREFILL_TOKENS, limits.max_batch_tokens, limits.max_tokens_per_handle, limits.kv_token_budget)

        def step() -> None:
            handle = self._create()
            self._append({handle: count})
            self._runner.release(handle)

        return count / self._fastest(step, self._effort.steps)

    def decode(self, shape: _Shape) -> float:
        handles = [self._create() for _ in range(shape.sequences)]
        try:
            at_once = max(1, self._capabilities.max_batch_tokens // shape.prompt)
            for start in range(0, len(handles), at_once):
                self._fill(handles[start : start + at_once], shape.prompt)
            took = self._fastest(lambda: self._append(dict.fromkeys(handles, 1)), shape.steps)
            return shape.sequences / took
        finally:
            for handle in handles:
                self._runner.release(handle)

    def _fill(self, handles: list[Handle], prompt: int) -> None:
        """A prompt for each; in parts where a batch holds less than one."""
        left = prompt
        while left:
            part = min(left, self._capabilities.max_batch_tokens // len(handles))
            self._append(dict.fromkeys(handles, part))
            left -= part

    def _fastest(self, step: Callable[[], None], steps: int) -> float:
        """Seconds of the fastest step: from the others somebody else may have taken processors.

        The first one is not counted, unless it took all the time there is, or is the only one.
        """
        first = self._timed(step)
        if first >= self._effort.seconds or steps == 1:
            return first
        taken: list[float] = []
        while not taken or (len(taken) < steps - 1 and sum(taken) < self._effort.seconds):
            taken.append(self._timed(step))
        return min(taken)

    def _timed(self, step: Callable[[], None]) -> float:
        begun = self._clock()
        step()
        return max(1e-9, self._clock() - begun)

    def _create(self) -> Handle:
        handle = self._runner.create()
        if handle is None:
            raise RunnerError("there are fewer handles than it says")
        return handle

    def _append(self, counts: dict[Handle, int]) -> None:
        """One forward pass with so many tokens for each handle, and logits for each one's last."""
        starts = {handle: self._runner.length(handle) for handle in counts}
        positions = np.concatenate(
            [np.arange(starts[handle], starts[handle] + count, dtype=np.int32) for handle, count in counts.items()]
        )
        ids = np.repeat(np.array([handle.id for handle in counts], np.int32), list(counts.values()))
        tokens = (self._first_id + (positions * 7 + ids * 13) % self._num_ids).astype(np.int32)
        rows = np.cumsum(list(counts.values()), dtype=np.int32) - 1
        result = self._runner.forward(Batch(tokens, ids, positions, rows.astype(np.int32)))
        if result.status is not ForwardStatus.OK:
            raise RunnerError(f"a step of {len(tokens)} tokens ended with {result.status}")
