"""Decode steps from fixed buffers of rounded sizes, as a GPU plays them back."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.conformance.driver import Driver, Run
from tests.support.models import why_no_torch
from tests.support.safetensors_folder import tiny_folder
from tests.workers.runners.torch.conftest import OpenModel

pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]


@pytest.fixture
def recorded() -> list[object]:
    """What was recorded, one entry per size."""
    return []


@pytest.fixture
def driver(open_model: OpenModel, recorded: list[object]) -> Driver:
    """A model whose decode steps are recorded, as far as a processor can."""
    import torch

    driver = open_model(tiny_folder("qwen3"), context=256, sequences=8, kv_type="f32")

    def record(function: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        recorded.append(function)
        return function

    driver.runner._open_session()._decoder._record = record
    return driver


def test_decodes_of_all_sizes_equal_a_whole_prompt(driver: Driver, recorded: list[object]) -> None:
    random = np.random.default_rng(1)
    prompts = [random.integers(3, 250, 60 + 30 * number).tolist() for number in range(5)]
    expected = [driver.feed(driver.create(), prompt) for prompt in prompts]
    handles = [driver.create() for _ in prompts]
    for handle, prompt in zip(handles, prompts, strict=True):
        driver.feed(handle, prompt[: -4 * (handles.index(handle) + 1)])
    recorded.clear()
    for step in range(-20, 0):
        # From one to five at a time, so that rows are left over in most.
        chosen = [number for number in range(5) if step >= -4 * (number + 1)]
        rows = driver.forward(*(Run(handles[number], [prompts[number][step]]) for number in chosen))
        for number, row in zip(chosen, rows, strict=True):
            np.testing.assert_allclose(row, expected[number][step], atol=1e-3)
    assert 2 <= len(recorded) <= 8
    assert driver.runner.books().fault == ""


def test_prompts_are_not_recorded(driver: Driver, recorded: list[object]) -> None:
    one, other = driver.create(), driver.create()
    driver.feed(one, [5, 6, 7])
    assert not recorded
    driver.forward(Run(one, [8]), Run(other, [5, 6]))
    assert not recorded
    driver.forward(Run(one, [9]), Run(other, [7]))
    driver.forward(Run(one, [9]), Run(other, [7]))
    assert len(recorded) == 1
