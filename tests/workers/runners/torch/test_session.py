"""A step that fails leaves everything as it was; pages are counted right."""

import numpy as np
import pytest

from tests.conformance.driver import Driver, Run
from tests.support.models import why_no_torch
from tests.support.safetensors_folder import tiny_folder
from tests.workers.runners.torch.conftest import OpenModel
from workers.runners.base import ForwardStatus, RunnerError

pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]


@pytest.fixture
def driver(open_model: OpenModel) -> Driver:
    return open_model(tiny_folder("qwen3"), context=64, sequences=4, kv_pages=8)


def free_pages(driver: Driver) -> int:
    assert driver.runner.books().fault == ""
    return driver.runner._open_session().tables.pool.num_free


def test_it_fits_to_the_last_page(driver: Driver) -> None:
    one, other = driver.create(), driver.create()
    driver.feed(one, [5] * 60)
    assert driver.runner.can_fit(driver.batch(Run(other, [5] * 64)))
    assert driver.runner.can_fit(driver.batch(Run(one, [5] * 4), Run(other, [5] * 64)))
    assert not driver.runner.can_fit(driver.batch(Run(one, [5] * 5)))
    third = driver.create()
    driver.feed(third, [5])
    assert free_pages(driver) == 3
    assert not driver.runner.can_fit(driver.batch(Run(other, [5] * 49)))
    assert driver.runner.can_fit(driver.batch(Run(other, [5] * 48), Run(third, [5] * 15)))


def test_a_page_that_two_would_write_to_counts(driver: Driver) -> None:
    """Cut back into a page that a fork holds too: the first who goes on needs a copy, the second does not."""
    origin = driver.create()
    expected = driver.feed(origin, list(range(5, 45)))
    fork = driver.runner.fork(origin, 32)
    assert fork is not None
    driver.runner.truncate(origin, 20)
    assert free_pages(driver) == 6
    np.testing.assert_allclose(driver.feed(origin, list(range(25, 45)), chunk=4), expected[20:], atol=1e-3)
    assert free_pages(driver) == 4
    np.testing.assert_allclose(driver.feed(fork, list(range(37, 45))), expected[32:], atol=1e-3)
    assert free_pages(driver) == 3


@pytest.mark.parametrize("is_memory", [True, False], ids=["memory", "bug"])
def test_a_failed_step_changes_nothing(driver: Driver, monkeypatch: pytest.MonkeyPatch, is_memory: bool) -> None:
    import torch

    handle = driver.create()
    driver.feed(handle, [5] * 20)
    before = free_pages(driver)
    session = driver.runner._open_session()

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("full") if is_memory else RuntimeError("CUDA error: an assert\nand a page of it")

    with monkeypatch.context() as patch:
        patch.setattr(session._decoder, "run", fail)
        batch = driver.batch(Run(handle, [5] * 30))
        if is_memory:
            assert driver.runner.forward(batch).status is ForwardStatus.NO_SPACE
        else:
            with pytest.raises(RunnerError, match=r"^PyTorch failed: CUDA error: an assert$"):
                driver.runner.forward(batch)
    assert driver.runner.length(handle) == 20
    assert free_pages(driver) == before
    driver.feed(handle, [5] * 30)


def test_an_aborted_step_gives_its_pages_back(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = driver.create()
    before = free_pages(driver)
    flag = driver.runner._abort_flag
    monkeypatch.setattr(flag, "clear", flag.set)
    assert driver.runner.forward(driver.batch(Run(handle, [5] * 40))).status is ForwardStatus.ABORTED
    assert driver.runner.length(handle) == 0
    assert free_pages(driver) == before


def test_kv_of_another_size_is_not_taken(driver: Driver) -> None:
    handle = driver.create()
    driver.feed(handle, [5] * 40)
    data = driver.runner.export(handle)
    before = free_pages(driver)
    assert driver.runner.import_(data[:-1], 40) is None
    assert driver.runner.import_(data, 16) is None
    assert driver.runner.import_(data, 65) is None
    assert free_pages(driver) == before
    assert driver.runner.import_(data, 40) is not None
    assert driver.runner.import_(data, 40) is None, "two pages are left, and three are needed"
    empty = driver.runner.import_(b"", 0)
    assert empty is not None and driver.runner.length(empty) == 0


@pytest.mark.parametrize("wrong", ["position", "handle", "token", "row"])
def test_a_batch_that_breaks_a_rule_is_refused(driver: Driver, wrong: str) -> None:
    batch = driver.batch(Run(driver.create(), [5, 6, 7]))
    array = {
        "position": batch.positions,
        "handle": batch.handle_ids,
        "token": batch.tokens,
        "row": batch.logit_rows,
    }[wrong]
    array[0] += 1000
    with pytest.raises(ValueError):
        driver.runner.forward(batch)
