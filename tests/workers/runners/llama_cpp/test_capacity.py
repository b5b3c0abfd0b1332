"""A batch that has no room changes nothing, and `can_fit` knows before."""

from pathlib import Path

import numpy as np
import pytest

from tests.workers.runners.llama_cpp.conftest import by_default
from tests.workers.runners.llama_cpp.driver import Driver, Feed
from workers.runners.base import ForwardStatus, RunnerError, RunnerSpec
from workers.runners.llama_cpp.runner import LlamaCppRunner

pytestmark = [pytest.mark.llama, pytest.mark.paged_kv]


def test_a_full_sequence_takes_no_more(tiny: Driver) -> None:
    full, other = tiny.create(), tiny.create()
    tiny.feed(full, [7] * 512)
    batch = tiny.batch(Feed(other, [8, 9]), Feed(full, [7]))
    assert not tiny.runner.can_fit(batch)
    assert tiny.runner.forward(batch).status is ForwardStatus.NO_SPACE
    assert tiny.runner.forward(batch).logits is None
    assert (tiny.runner.length(full), tiny.runner.length(other)) == (512, 0)
    expected = tiny.feed(tiny.create(), [8, 9])
    assert np.array_equal(tiny.feed(other, [8, 9]), expected)


def test_a_shared_buffer_that_is_full_takes_no_more(unified: Driver) -> None:
    first, second = unified.create(), unified.create()
    unified.feed(first, [7] * 300)
    unified.feed(second, [8] * 200)
    batch = unified.batch(Feed(first, [9] * 6), Feed(second, [9] * 7))
    assert not unified.runner.can_fit(batch)
    assert unified.runner.forward(batch).status is ForwardStatus.NO_SPACE
    assert (unified.runner.length(first), unified.runner.length(second)) == (300, 200)
    assert unified.runner.can_fit(unified.batch(Feed(first, [9] * 6), Feed(second, [9] * 6)))
    unified.runner.truncate(second, 199)
    assert unified.try_forward(Feed(first, [9] * 6), Feed(second, [9] * 7)).status is ForwardStatus.OK
    assert not unified.runner.can_fit(unified.batch(Feed(first, [9])))


def test_what_the_library_itself_refuses_changes_nothing(unified: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = unified.create(), unified.create()
    unified.feed(first, [7] * 300)
    unified.feed(second, [8] * 200)
    monkeypatch.setattr(unified.runner._open_session().kv, "fits", lambda positions: True)
    assert unified.try_forward(Feed(first, [9] * 6), Feed(second, [9] * 7)).status is ForwardStatus.NO_SPACE
    monkeypatch.undo()
    assert (unified.runner.length(first), unified.runner.length(second)) == (300, 200)
    unified.runner.release(second)
    expected_source = unified.create()
    unified.feed(first, [9])
    assert unified.runner.length(first) == 301
    assert unified.runner.length(expected_source) == 0


def test_released_and_cut_cells_are_free_again(unified: Driver) -> None:
    for _ in range(5):
        handle = unified.create()
        unified.feed(handle, [7] * 500)
        unified.runner.truncate(handle, 100)
        other = unified.create()
        unified.feed(other, [8] * 400)
        unified.runner.release(other)
        unified.runner.release(handle)


def test_cells_of_a_shared_prefix_are_freed_by_the_last_holder(unified: Driver) -> None:
    source = unified.create()
    unified.feed(source, [7] * 256)
    fork = unified.runner.fork(source, 200)
    assert fork is not None
    unified.runner.release(source)
    third = unified.create()
    assert not unified.runner.can_fit(unified.batch(Feed(third, [8] * 313)))
    unified.feed(third, [8] * 312)
    unified.runner.release(fork)
    unified.feed(unified.create(), [9] * 200)


def test_after_a_fatal_decode_only_release_and_close_are_left(
    tiny_model: Path, cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
    broken = Driver(runner, runner.open(RunnerSpec("model", str(tiny_model), context=256, sequences=2)))
    handle = broken.create()
    with monkeypatch.context() as patch:
        patch.setattr(runner._open_session().context, "decode", lambda *rows: -3)
        with pytest.raises(RunnerError, match="code -3"):
            broken.try_forward(Feed(handle, [5]))
    with pytest.raises(RunnerError, match="code -3"):
        broken.try_forward(Feed(handle, [5]))
    runner.release(handle)
    runner.close()
    runner.release(handle)
    reopened = Driver(runner, runner.open(RunnerSpec("model", str(tiny_model), context=256, sequences=2)))
    reopened.feed(reopened.create(), [5])
    runner.close()
