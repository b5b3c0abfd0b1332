"""The timed steps on the echo runner, which asserts the rules of the interface, and on a clock of the test's own."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.calibration.steps import Effort, measure
from workers.runners.base import Batch, ForwardResult, RunnerError, RunnerSpec
from workers.runners.echo import EchoRunner

EFFORT = Effort(steps=4, seconds=1.0)


class Watched(EchoRunner):
    """Keeps the shape of each batch: tokens, and handles among them."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[int, int]] = []

    def forward(self, batch: Batch) -> ForwardResult:
        self.batches.append((len(batch.tokens), len(set(batch.handle_ids.tolist()))))
        return super().forward(batch)


def ticking(step_s: float) -> Iterator[float]:
    """A clock that goes on by so much at each look."""
    now = 0.0
    while True:
        yield now
        now += step_s


def opened(**options: int | None) -> tuple[Watched, object]:
    runner = Watched()
    facts = runner.open(RunnerSpec("m", "echo:repeat", **options))  # type: ignore[arg-type]
    runner.batches.clear()
    return runner, facts


def test_figures_are_tokens_by_the_time_of_a_step() -> None:
    runner, facts = opened(context=1024, sequences=4)
    clock = ticking(0.01)
    figures = measure(runner, facts, 4, EFFORT, memory_bytes=lambda: 7, clock=lambda: next(clock))  # type: ignore[arg-type]
    assert figures.sequences == 4
    assert figures.memory_bytes == 7
    assert figures.decode == pytest.approx(4 / 0.01)
    assert figures.decode_alone == pytest.approx(1 / 0.01)
    assert figures.prefill == pytest.approx(256 / 0.01)


def test_decode_is_of_all_sequences_at_once_and_of_one_alone() -> None:
    runner, facts = opened(context=1024, sequences=4)
    clock = ticking(0.01)
    measure(runner, facts, 4, EFFORT, clock=lambda: next(clock))  # type: ignore[arg-type]
    assert runner.batches.count((4, 4)) == 4
    assert runner.batches.count((1, 1)) == 4
    assert runner.batches.count((256, 1)) == 4
    assert runner.books().free_handles == 4


def test_a_slow_model_computes_each_step_once() -> None:
    runner, facts = opened(context=1024, sequences=2)
    clock = ticking(5.0)
    figures = measure(runner, facts, 2, EFFORT, clock=lambda: next(clock))  # type: ignore[arg-type]
    assert runner.batches.count((2, 2)) == runner.batches.count((1, 1)) == runner.batches.count((256, 1)) == 1
    assert figures.decode == pytest.approx(2 / 5)


@given(st.integers(16, 600), st.integers(1, 40), st.integers(1, 600), st.integers(1, 64), st.integers(1, 30))
def test_any_limits_of_a_runner_are_kept(context: int, sequences: int, batch: int, wanted: int, steps: int) -> None:
    runner, facts = opened(context=context, sequences=sequences, batch_tokens=batch)
    clock = ticking(0.001)
    effort = Effort(steps=steps, seconds=0.02)
    figures = measure(runner, facts, wanted, effort, clock=lambda: next(clock))  # type: ignore[arg-type]
    assert figures.sequences == min(wanted, sequences, batch)
    assert max(tokens for tokens, _ in runner.batches) <= batch
    assert runner.books().free_handles == sequences


def test_one_that_cannot_come_up_to_the_best_is_left_at_once() -> None:
    runner, facts = opened(context=1024, sequences=4)
    clock = ticking(0.01)
    with pytest.raises(RunnerError, match="out of the question with a prefill of 25600 tok/s"):
        measure(runner, facts, 4, EFFORT, floor=25_601, clock=lambda: next(clock))  # type: ignore[arg-type]
    assert {tokens for tokens, _ in runner.batches} == {256}
    measure(runner, facts, 4, EFFORT, floor=25_599, clock=lambda: next(clock))  # type: ignore[arg-type]


def test_a_step_that_finds_no_room_is_a_failure() -> None:
    class Full(Watched):
        def can_fit(self, batch: Batch) -> bool:
            return False

    runner = Full()
    with pytest.raises(RunnerError):
        measure(runner, runner.open(RunnerSpec("m", "echo:repeat")), 4, EFFORT)
