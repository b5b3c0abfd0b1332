"""The process that computes for the gate: a model opened as a worker would, the text read, and gone.

One for each backend, since two libraries in one process slow each other down, and a crash should take nobody along.
"""

import os
import resource
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ops.bench.quality.divergence import Divergence, Tally, log_probs
from ops.bench.quality.forcing import PROMPT, Windows, read_text
from ops.bench.quality.request import Request, Told
from ops.bench.quality.windows import windows
from ops.calibration.request import runner_spec
from ops.supervisor.parent import die_with_parent
from workers.runners.base import ModelRunner, Opened, RunnerError
from workers.runners.registry import create_runner


def main() -> int:
    request = Request.model_validate_json(sys.stdin.readline())
    die_with_parent(request.parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not what the parent reads
    try:
        told = _compute(request)
    except (RunnerError, ValueError, MemoryError, OSError) as error:
        told = Told(failure=str(error) or type(error).__name__)
    with open(output, "w") as file:
        file.write(told.model_dump_json())
    return 0


def _compute(request: Request) -> Told:
    runner = create_runner(request.backend)
    opened = runner.open(runner_spec(request.spec))
    try:
        description = opened.facts.description
        if request.windows is None:
            text = windows(opened.facts.tokenizer, request.num_tokens)
            _write(runner, opened, text, Path(request.table))
            return Told(description=description, windows=text)
        table = np.load(request.table, mmap_mode="r")
        shapes = {rows: _compare(runner, opened, request.windows, rows, table) for rows in request.shapes}
        return Told(description=description, shapes=shapes)
    finally:
        runner.close()


def _write(runner: ModelRunner, opened: Opened, text: Windows, path: Path) -> None:
    vocab_size = opened.facts.tokenizer.vocab_size
    total = sum(map(len, text))
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(total, vocab_size))
    starts = first_places(text)
    for window, places, logits in read_text(runner, opened, text, PROMPT):
        start = starts[window] + places[0]
        table[start : start + len(places)] = log_probs(logits)
    table.flush()


def _compare(
    runner: ModelRunner, opened: Opened, text: Windows, rows: int, table: npt.NDArray[np.float32]
) -> Divergence:
    starts, tally = first_places(text), Tally()
    if opened.facts.tokenizer.vocab_size != table.shape[1]:
        raise RunnerError(f"a vocabulary of {opened.facts.tokenizer.vocab_size}, the reference's has {table.shape[1]}")
    for window, places, logits in read_text(runner, opened, text, rows):
        start = starts[window] + places[0]
        tally.add(table[start : start + len(places)], log_probs(logits))
    return tally.result()


def first_places(text: Windows) -> list[int]:
    """The row of the table at which each window begins."""
    return [sum(map(len, text[:number])) for number in range(len(text))]


if __name__ == "__main__":
    sys.exit(main())
