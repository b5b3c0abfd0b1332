"""What is measured in which order, and what follows, with figures that are made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.runners.llama_cpp.figures import MadeUpTimings
from workers.runners.llama_cpp.tuner import tune
from workers.runners.llama_cpp.tuning import Choices, Tuning, untuned

CHOICES = Choices(untuned(4, 512), (3, 2), 512)
FAVOUR = {
    "decode": lambda threads: 0.01 if threads == 2 else 0.02,
    "batch": lambda threads: 0.01 if threads == 3 else 0.02,
    "prefill": lambda micro_batch: 0.0001 if micro_batch == 128 else 0.0002,
}


def test_each_figure_decides_one_thing() -> None:
    timings = MadeUpTimings(**FAVOUR)
    outcome = tune(CHOICES, timings)
    assert outcome.tuning == Tuning(2, 3, 128)
    assert outcome.is_final
    assert timings.prepared == (512, (512, 128, 256), 3)
    assert [what for what, _ in timings.measured] == sorted(
        [what for what, _ in timings.measured], key=["decode", "batch", "prompt", "prefill"].index
    )


def test_it_says_what_it_measured() -> None:
    findings = tune(CHOICES, MadeUpTimings(**FAVOUR)).findings
    assert "a token alone takes 20.00 ms with 4, 20.00 ms with 3, 10.00 ms with 2" in findings
    assert "a longer prompt takes 0.20 ms in parts of 512, 0.10 ms in parts of 128, 0.20 ms in parts of 256" in findings


def test_equal_figures_leave_the_defaults() -> None:
    outcome = tune(CHOICES, MadeUpTimings())
    assert (outcome.tuning, outcome.is_final) == (CHOICES.default, True)


def test_configured_threads_are_kept_and_not_measured() -> None:
    timings = MadeUpTimings(**FAVOUR)
    outcome = tune(CHOICES._replace(default=untuned(6, 512), threads=()), timings)
    assert outcome.tuning == Tuning(6, 6, 128)
    assert {what for what, _ in timings.measured} == {"prompt", "prefill"}


def test_small_batches_have_one_micro_batch() -> None:
    timings = MadeUpTimings(**FAVOUR)
    assert tune(Choices(untuned(4, 100), (3, 2), 100), timings).tuning == Tuning(2, 3, 100)
    assert {what for what, _ in timings.measured} == {"decode", "batch"}


def test_a_busy_machine_decides_nothing() -> None:
    outcome = tune(CHOICES, MadeUpTimings(**FAVOUR, busy=True))
    assert (outcome.tuning, outcome.is_final) == (CHOICES.default, False)
    assert "others have the processors" in outcome.findings


def test_a_model_too_slow_to_measure_is_left_after_one_step() -> None:
    timings = MadeUpTimings(**FAVOUR, cost_s=1.6)
    outcome = tune(CHOICES, timings)
    assert (outcome.tuning, timings.measured) == (CHOICES.default, [("decode", 4)])
    assert outcome.is_final
    assert "too long" in outcome.findings


def test_what_was_measured_before_the_time_is_up_counts() -> None:
    timings = MadeUpTimings(**FAVOUR, stops_at=11)
    outcome = tune(CHOICES, timings)
    assert (outcome.tuning, outcome.is_final) == (Tuning(2, 4, 512), False)
    assert "had to stop" in outcome.findings


def test_a_slow_prompt_is_tried_shorter_or_not_at_all() -> None:
    alone = CHOICES._replace(threads=())
    for token_s, prompt in ((0.0009, 512), (0.0027, 256), (0.003, None)):
        timings = MadeUpTimings(prefill=lambda _, token_s=token_s: token_s, cost_s=0.0)
        outcome = tune(alone, timings)
        assert (timings.prepared or (None,))[0] == prompt
        assert (outcome.tuning, outcome.is_final) == (alone.default, True)


@given(
    figures=st.dictionaries(st.tuples(st.sampled_from(sorted(FAVOUR)), st.integers(1, 1024)), st.floats(1e-5, 1.0)),
    room_s=st.floats(0, 4),
    cost_s=st.floats(0, 1),
    stops_at=st.none() | st.integers(0, 40),
    busy=st.booleans(),
)
def test_what_comes_out_is_among_the_choices_and_final_only_when_nothing_was_in_the_way(
    figures: dict[tuple[str, int], float], room_s: float, cost_s: float, stops_at: int | None, busy: bool
) -> None:
    made_up = {what: lambda value, what=what: figures.get((what, value), 0.01) for what in FAVOUR}
    timings = MadeUpTimings(**made_up, room_s=room_s, cost_s=cost_s, stops_at=stops_at, busy=busy)
    outcome = tune(CHOICES, timings)
    assert CHOICES.include(outcome.tuning)
    assert not (busy and (outcome.is_final or outcome.tuning != CHOICES.default))
    if stops_at == 0:
        assert (outcome.tuning, outcome.is_final) == (CHOICES.default, False)


@pytest.mark.parametrize("stops_at", range(20))
def test_wherever_it_stops_there_is_a_tuning(stops_at: int) -> None:
    outcome = tune(CHOICES, MadeUpTimings(stops_at=stops_at))
    assert outcome.tuning == CHOICES.default
