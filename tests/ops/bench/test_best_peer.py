"""Ours against whichever peer is best, cell by cell."""

import pytest

from ops.bench.best_peer import noise, standing
from ops.bench.markdown import markdown
from ops.bench.quality.divergence import Divergence
from ops.bench.quality.results import ArmQuality
from ops.bench.turns import Results
from tests.ops.bench.figures import report, summary


def results() -> Results:
    filled = Results()
    for _ in range(2):
        for load, ours, slow, quick in (("c=1", 200, 100, 150), ("c=8", 300, 400, 100)):
            filled.add("ours", summary(ours, load=load, ttft_ms=50))
            filled.add("llama-server", summary(slow, load=load, ttft_ms=100))
            filled.add("vllm", summary(quick, load=load, ttft_ms=40))
    return filled


def test_each_cell_has_its_own_best_peer() -> None:
    found = standing("ours", ("llama-server", "vllm"), results().rounds)
    assert found is not None
    cells = {(cell.load, cell.figure): (cell.best_peer, cell.ratio.median) for cell in found.cells}
    assert cells == {
        ("c=1", "output_tokens_per_s"): ("vllm", pytest.approx(4 / 3)),
        ("c=8", "output_tokens_per_s"): ("llama-server", 0.75),
        # Less is better, and above 1 is better all the same.
        ("c=1", "ttft_p50_ms"): ("vllm", 0.8),
        ("c=8", "ttft_p50_ms"): ("vllm", 0.8),
    }
    assert found.num_ahead == 1
    assert found.geometric_mean == pytest.approx((4 / 3 * 0.75 * 0.8 * 0.8) ** 0.25)


def test_a_load_that_no_peer_was_measured_with_is_no_cell() -> None:
    assert standing("ours", ("vllm",), {"ours": {"c=1": [summary(1)]}, "vllm": {"c=8": [summary(1)]}}) is None


def test_noise_is_the_range_by_the_median() -> None:
    assert noise([summary(95), summary(100), summary(110)]) == pytest.approx(0.15)
    assert noise([summary(95)]) is None


def test_cells_behind_are_marked_and_counted() -> None:
    text = markdown(report(results()))
    assert "1 of 4 cells ≥ 1.0, geometric mean 0.89, mean KL not measured" in text
    assert "behind in c=1 TTFT p50 ms (vllm), c=8 output tokens/s (llama-server), c=8 TTFT p50 ms (vllm)" in text
    rows = [line for line in text.splitlines() if line.startswith("| ours")]
    assert sum("**BEHIND**" in row for row in rows) == 3


def test_quality_is_beside_each_ratio() -> None:
    measured = report(results())
    measured.quality.arms["ours"] = ArmQuality(
        "a runner",
        "torch",
        {
            "prompt": Divergence(tokens=10, mean_kl=0.001, largest_kl=0.1, top1=1.0),
            "1 row": Divergence(tokens=10, mean_kl=0.02, largest_kl=0.3, top1=0.5),
        },
    )
    text = markdown(measured)
    assert "Mean KL to FP32: ours 0.0200 **FAILS**, vllm not measured." in text
    assert text.count("0.0200 **FAILS**") == 1 + 4 + 1 + 2
    assert measured.has_failed


def test_noisy_cells_are_warned_of() -> None:
    noisy = Results()
    for tokens_per_s in (100, 120):
        noisy.add("ours", summary(tokens_per_s))
    assert "**Warning**: the rounds of ours at c=1 differ by 18%." in markdown(report(noisy))
