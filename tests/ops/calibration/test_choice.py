"""Which backend the figures speak for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.calibration.choice import TIE, decide
from ops.calibration.verdict import Outcome
from tests.ops.calibration.figures import failed, measured

GIB = 2**30


@pytest.mark.parametrize(
    ("outcomes", "backend"),
    [
        ((measured("llama_cpp", 184), measured("torch", 748)), "torch"),
        ((measured("llama_cpp", 748), measured("torch", 184)), "llama_cpp"),
        # prefill counts as much: 1/300 + 1/300 is less than 1/700 + 1/100
        ((measured("llama_cpp", 300, prefill=300), measured("torch", 700, prefill=100)), "llama_cpp"),
        # about the same: the smaller one
        ((measured("torch", 500, memory_bytes=2 * GIB), measured("mlx", 490, memory_bytes=GIB)), "mlx"),
        ((measured("torch", 500, memory_bytes=2 * GIB), measured("mlx", 400, memory_bytes=GIB)), "torch"),
        # the same in all: that which is preferred
        ((measured("torch", 500), measured("mlx", 500)), "torch"),
        # who fails is out
        ((failed("llama_cpp"), measured("torch", 1)), "torch"),
        ((failed("llama_cpp"), failed("torch")), None),
        ((), None),
    ],
)
def test_the_faster_one_is_taken(outcomes: tuple[Outcome, ...], backend: str | None) -> None:
    verdict = decide(outcomes, 16)
    assert verdict.backend == backend
    assert verdict.is_final == (backend is not None)


def test_what_another_day_would_say_otherwise_is_not_final() -> None:
    assert not decide([measured("torch", 500), failed("llama_cpp")], 16, is_final=False).is_final
    busy = decide([measured("torch", 500, waited=0.5), measured("llama_cpp", 100)], 16)
    assert (busy.backend, busy.is_final) == ("torch", False)
    assert "the machine was busy" in busy.told()


def test_the_verdict_is_told_in_one_line_with_the_fastest_first() -> None:
    verdict = decide([failed("mlx"), measured("llama_cpp", 184, 311), measured("torch", 748.4, 2100)], 16)
    assert verdict.told() == (
        "at 16 sequences torch 748 tok/s (prefill 2100), llama_cpp 184 tok/s (prefill 311), "
        "mlx: its process ended with SIGSEGV"
    )


NAMES = ("llama_cpp", "torch", "mlx")
SPEEDS = st.floats(0.01, 1e6)
OUTCOMES = st.permutations(NAMES).flatmap(
    lambda names: st.tuples(
        *(
            st.one_of(
                st.just(failed(name)),
                st.builds(measured, st.just(name), SPEEDS, SPEEDS, st.integers(0, 2**40), st.floats(0, 1)),
            )
            for name in names
        )
    )
)


@given(OUTCOMES)
def test_nothing_clearly_faster_and_nothing_as_fast_and_smaller_is_passed_over(outcomes: tuple[Outcome, ...]) -> None:
    verdict = decide(outcomes, 8)
    figures = {outcome.backend: outcome.figures for outcome in outcomes if outcome.figures is not None}
    if not figures:
        assert verdict.backend is None
        return
    assert verdict.backend is not None
    taken = figures[verdict.backend]
    best = max(each.score for each in figures.values())
    assert taken.score >= best * (1 - TIE)
    assert all(each.memory_bytes >= taken.memory_bytes for each in figures.values() if each.score >= best * (1 - TIE))


@given(OUTCOMES)
def test_a_failure_changes_nothing_for_the_others(outcomes: tuple[Outcome, ...]) -> None:
    without = [outcome for outcome in outcomes if outcome.figures is not None]
    assert decide(outcomes, 8).backend == decide(without, 8).backend
