"""KL by its definition."""

import numpy as np
import pytest

from ops.bench.quality.divergence import Tally, log_probs


def rows(seed: int, count: int = 5, width: int = 50) -> np.ndarray:
    return log_probs(np.random.default_rng(seed).normal(0, 3, (count, width)).astype(np.float32))


def test_rows_are_normalised() -> None:
    assert np.exp(rows(1)).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_the_same_is_no_distance() -> None:
    tally = Tally()
    tally.add(rows(1), rows(1))
    found = tally.result()
    assert (found.tokens, found.mean_kl, found.largest_kl, found.top1) == (5, 0.0, 0.0, 1.0)


def test_kl_is_from_the_reference() -> None:
    p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    tally = Tally()
    tally.add(np.log(p), np.log(q))
    assert tally.result().mean_kl == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))


def test_mean_and_largest_are_over_all_that_was_added() -> None:
    both, apart = Tally(), [Tally(), Tally()]
    both.add(rows(1), rows(2))
    for half, (start, end) in zip(apart, ((0, 2), (2, 5)), strict=True):
        half.add(rows(1)[start:end], rows(2)[start:end])
    found = [half.result() for half in apart]
    assert both.result().mean_kl == pytest.approx((2 * found[0].mean_kl + 3 * found[1].mean_kl) / 5)
    assert both.result().largest_kl == max(one.largest_kl for one in found)


def test_what_is_known_of_some_tokens_is_a_lower_bound() -> None:
    reference, other = rows(1), rows(2)
    whole, known = Tally(), Tally()
    whole.add(reference, other)
    for p, q in zip(reference, other, strict=True):
        best = np.argsort(q)[-10:]
        known.add_known(p, best, q[best])
    assert 0 < known.result().mean_kl <= whole.result().mean_kl
    assert known.result().is_bound and not whole.result().is_bound
    assert known.result().top1 == whole.result().top1
