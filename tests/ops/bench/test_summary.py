"""Figures of one load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.bench.summary import percentile, spread, summarise
from tests.ops.bench.figures import loop_result, sample

VALUES = st.lists(st.floats(0, 1e6), min_size=1)


def test_percentile_interpolates_between_ranks() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([1, 2, 3, 4, 5], 50) == 3
    assert percentile([10, 20], 99) == pytest.approx(19.9)
    assert percentile([7], 99) == 7


@given(VALUES, st.floats(0, 100))
def test_percentile_lies_within_the_values(values: list[float], percent: float) -> None:
    assert min(values) <= percentile(values, percent) <= max(values)


@given(VALUES)
def test_percentiles_ascend(values: list[float]) -> None:
    assert percentile(values, 0) == min(values)
    assert percentile(values, 50) <= percentile(values, 99) <= percentile(values, 100) == max(values)


def test_spread_is_median_and_range() -> None:
    found = spread([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)


def test_figures_of_a_load() -> None:
    result = loop_result(sample(ttft_s=0.25), sample(ttft_s=0.5), sample(ttft_s=1.0), wall_s=3.0)
    found = summarise(result, {"edge": 0.03})
    assert found.output_tokens == 15
    assert found.output_tokens_per_s == 5.0
    assert found.ttft_p50_ms == pytest.approx(500)
    assert found.tpot_ms == pytest.approx(250)
    assert found.prompt_tokens == 51
    assert found.num_short == 0
    assert found.server_cpu_ms_per_token == {"edge": pytest.approx(2.0)}


def test_answers_of_another_length_are_counted() -> None:
    assert summarise(loop_result(sample(tokens=5), sample(tokens=4), max_tokens=5), {}).num_short == 1


def test_answers_of_one_token_have_no_tpot() -> None:
    assert summarise(loop_result(sample(tokens=1), max_tokens=1), {}).tpot_ms is None
