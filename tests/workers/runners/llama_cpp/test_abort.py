"""An abort ends a running step and leaves every handle as it was."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.workers.runners.llama_cpp.driver import Driver, Feed
from workers.runners.base import ForwardStatus
from workers.runners.llama_cpp.runner import LlamaCppRunner

pytestmark = pytest.mark.llama

PROMPT = [100 + step % 1000 for step in range(256)]


@contextmanager
def aborting(driver: Driver) -> Iterator[None]:
    """Another thread that asks for an abort again and again: what it asks before a step begins is forgotten."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.002):
            driver.runner.abort()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_an_aborted_prompt_runs_anew_as_if_nothing_had_been(real: Driver) -> None:
    undisturbed, handle, bystander = real.create(), real.create(), real.create()
    expected = real.feed(undisturbed, PROMPT)
    expected_next = real.feed(undisturbed, [42])
    real.feed(bystander, PROMPT[:20])
    with aborting(real):
        result = real.try_forward(Feed(handle, PROMPT))
    assert result.status is ForwardStatus.ABORTED
    assert result.logits is None
    assert real.runner.length(handle) == 0
    real.runner.truncate(handle, 0)
    assert np.array_equal(real.feed(handle, PROMPT), expected)
    assert np.array_equal(real.feed(handle, [42]), expected_next)


def test_an_abort_takes_back_what_some_sequences_had_done(real: Driver) -> None:
    """The batch goes in several passes; those done when the abort comes are undone too."""
    decoding, filling = real.create(), real.create()
    real.feed(decoding, PROMPT[:20])
    expected = real.feed(decoding, [42])
    real.runner.truncate(decoding, 20)
    with aborting(real):
        result = real.try_forward(Feed(decoding, [42]), Feed(filling, PROMPT[:200]))
    assert result.status is ForwardStatus.ABORTED
    assert (real.runner.length(decoding), real.runner.length(filling)) == (20, 0)
    assert np.array_equal(real.feed(decoding, [42]), expected)


def test_an_abort_between_steps_is_forgotten(either: Driver) -> None:
    handle = either.create()
    either.runner.abort()
    assert either.try_forward(Feed(handle, [5, 6])).status is ForwardStatus.OK


def test_an_abort_of_a_runner_that_is_not_open_does_nothing() -> None:
    runner = LlamaCppRunner()
    runner.abort()
    runner.close()
