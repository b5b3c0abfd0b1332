"""Teacher forcing: a runner is fed a fixed text, and says after each token what it expects next.

How many rows a step has decides which kernels, and which number formats, compute it. So the text is read several times:
one token of one sequence a step, one token of each of several, and many tokens of one, as prompts are read.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from workers.runners.base import Batch, FloatArray, ForwardStatus, Handle, ModelRunner, Opened, RunnerError

Windows = Sequence[Sequence[int]]
# The shape in which prompts are read.
PROMPT = 0


class Expected(NamedTuple):
    """Logits after the tokens `places` of window `window`, a row for each."""

    window: int
    places: Sequence[int]
    logits: FloatArray


def shape_name(rows: int) -> str:
    """A shape is the number of sequences that a step has one token of, or PROMPT."""
    return "prompt" if rows == PROMPT else f"{rows} row{'s' if rows > 1 else ''}"


def read_text(runner: ModelRunner, opened: Opened, text: Windows, rows: int) -> Iterator[Expected]:
    """Everything that the runner expects in that shape. Logits are valid until the next one is asked for. Raises
    RunnerError."""
    if rows == PROMPT:
        for number, window in enumerate(text):
            yield from _read_prompt(runner, opened, number, window)
    else:
        for start in range(0, len(text), rows):
            yield from _read_together(runner, text, range(start, min(start + rows, len(text))), rows)


def _read_prompt(runner: ModelRunner, opened: Opened, number: int, window: Sequence[int]) -> Iterator[Expected]:
    limits = opened.capabilities
    most = min(limits.max_batch_tokens, limits.max_logit_rows)
    handle = _create(runner)
    for start in range(0, len(window), most):
        places = range(start, min(start + most, len(window)))
        tokens = [window[place] for place in places]
        logits = _forward(runner, tokens, [handle] * len(tokens), list(places), np.arange(len(tokens)))
        yield Expected(number, places, logits)
    runner.release(handle)


def _read_together(runner: ModelRunner, text: Windows, numbers: range, rows: int) -> Iterator[Expected]:
    """A token of each a step. The windows are repeated until there are `rows` of them; only their first ones count."""
    lanes = [numbers[lane % len(numbers)] for lane in range(rows)]
    handles = [_create(runner) for _ in lanes]
    for place in range(max(len(text[number]) for number in numbers)):
        live = [lane for lane, number in enumerate(lanes) if place < len(text[number])]
        tokens = [text[lanes[lane]][place] for lane in live]
        logits = _forward(runner, tokens, [handles[lane] for lane in live], [place] * len(live), np.arange(len(live)))
        for row, lane in enumerate(live):
            if lane < len(numbers):
                yield Expected(lanes[lane], (place,), logits[row : row + 1])
    for handle in handles:
        runner.release(handle)


def _create(runner: ModelRunner) -> Handle:
    handle = runner.create()
    if handle is None:
        raise RunnerError("there is no handle left")
    return handle


def _forward(
    runner: ModelRunner,
    tokens: Sequence[int],
    handles: Sequence[Handle],
    positions: Sequence[int],
    rows: "np.ndarray[tuple[int], np.dtype[np.int_]]",
) -> FloatArray:
    batch = Batch(
        tokens=np.array(tokens, np.int32),
        handle_ids=np.array([handle.id for handle in handles], np.int32),
        positions=np.array(positions, np.int32),
        logit_rows=rows.astype(np.int32),
    )
    result = runner.forward(batch)
    if result.status is not ForwardStatus.OK or result.logits is None:
        raise RunnerError(f"a step was not done: {result.status}")
    return result.logits
