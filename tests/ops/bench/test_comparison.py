"""Medians over the rounds, and ratios by round."""

import pytest

from ops.bench.comparison import by_load, medians, ratios, server_cpu_ms_per_token
from tests.ops.bench.figures import summary


def test_medians_over_the_rounds() -> None:
    found = medians([summary(100), summary(300), summary(110)])
    assert found["output_tokens_per_s"].median == 110
    assert (found["output_tokens_per_s"].low, found["output_tokens_per_s"].high) == (100, 300)


def test_a_figure_that_no_round_has_is_left_out() -> None:
    assert "tpot_ms" not in medians([summary(100, tpot_ms=None)])
    assert "tpot_ms" not in ratios([summary(100)], [summary(100, tpot_ms=None)])


def test_ratios_are_of_neighbouring_turns() -> None:
    # The machine was twice as slow in round 2, for both: the ratio does not see it.
    found = ratios([summary(200), summary(100), summary(210)], [summary(100), summary(50), summary(100)])
    assert found["output_tokens_per_s"].median == 2.0
    assert found["output_tokens_per_s"].high == pytest.approx(2.1)


def test_a_round_that_one_side_did_not_finish_does_not_count() -> None:
    found = ratios([summary(200), summary(900)], [summary(100)])
    assert (found["output_tokens_per_s"].low, found["output_tokens_per_s"].high) == (2.0, 2.0)


def test_only_common_loads_are_compared() -> None:
    ours = {"c=1": [summary(100)], "c=8": [summary(200)]}
    found = by_load(ours, {"c=8": [summary(100)], "c=32": []})
    assert list(found) == ["c=8"]


def test_processor_time_of_an_output_token() -> None:
    assert server_cpu_ms_per_token([summary(100), summary(50)]) == {"server": pytest.approx(2.0)}
