"""In whichever shape a text is read, each of its places is expected once, and after the same tokens."""

from collections.abc import Iterator

import numpy as np
import pytest

from ops.bench.quality.child import first_places
from ops.bench.quality.forcing import PROMPT, read_text, shape_name
from ops.bench.quality.windows import passages, windows
from workers.runners.base import ModelRunner, Opened, RunnerSpec
from workers.runners.registry import create_runner

TEXT = [list(range(20, 40)), list(range(50, 57)), list(range(60, 75))]


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[ModelRunner, Opened]]:
    runner = create_runner("echo")
    opened = runner.open(RunnerSpec("echo", "echo:random", context=64, sequences=8, batch_tokens=8))
    yield runner, opened
    runner.close()


def read(echo: tuple[ModelRunner, Opened], rows: int) -> np.ndarray:
    starts, total = first_places(TEXT), sum(map(len, TEXT))
    found = np.full((total, echo[1].facts.tokenizer.vocab_size), np.nan, np.float32)
    for window, places, logits in read_text(*echo, TEXT, rows):
        rows_of = [starts[window] + place for place in places]
        assert np.isnan(found[rows_of]).all()
        found[rows_of] = logits
    return found


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_every_shape_expects_the_same_of_a_runner_that_computes_exactly(
    echo: tuple[ModelRunner, Opened], rows: int
) -> None:
    at_once = read(echo, PROMPT)
    assert np.isfinite(at_once).all()
    np.testing.assert_array_equal(read(echo, rows), at_once)


def test_all_handles_are_given_back(echo: tuple[ModelRunner, Opened]) -> None:
    for rows in (PROMPT, 1, 8, 8, 8):
        read(echo, rows)


def test_shapes_have_names() -> None:
    assert [shape_name(rows) for rows in (PROMPT, 1, 8)] == ["prompt", "1 row", "8 rows"]


def test_the_text_is_eight_passages(echo: tuple[ModelRunner, Opened]) -> None:
    assert len(passages()) == 8
    assert len(set(passages())) == 8
    # Enough for 250 tokens each, of which code has more in a word.
    assert all(len(text) >= 900 for text in passages())
    assert [len(window) for window in windows(echo[1].facts.tokenizer, 30)] == [30] * 8
