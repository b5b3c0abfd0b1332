"""The torch runner alone: what a step takes and where that goes. Then the engine on it: what it adds to each step.

Nothing else runs, so this is what broker, edge and clients leave over of.
"""

import re
import statistics
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np

from ops.bench.markdown import table
from ops.serving.plan import DEFAULT_SOURCE
from ops.serving.sources import resolve
from schemas.requests import SamplingParams, TokenPrompt
from workers.engine.config import EngineConfig
from workers.engine.messages import EngineRequest
from workers.engine.stepper import Stepper
from workers.runners.base import Batch, Handle, Opened, RunnerError, RunnerSpec
from workers.runners.torch.pages import num_pages

if TYPE_CHECKING:
    from workers.runners.torch.runner import TorchRunner

DEFAULT_CELLS = "1@100,8@100,32@100,1@500,8@500,32@500,1x512@0,16x32@0"
MAX_SEQUENCES = 32
BATCH_TOKENS = 512
_WARM_UP = 3
_PROMPT_TOKENS = 51
_ANSWER_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Cell:
    """A step of `sequences`, each with `rows` new tokens behind `context` that are there."""

    sequences: int
    rows: int
    context: int

    @property
    def name(self) -> str:
        rows = f"x{self.rows}" if self.rows > 1 else ""
        return f"{self.sequences}{rows}@{self.context}"


@dataclass(frozen=True, slots=True)
class Timing:
    """Of a step, in milliseconds: the median and the least, and the mean of each stage as far as it is known."""

    median: float
    least: float
    mean: float
    stages: dict[str, float]


def parse_cells(text: str) -> list[Cell]:
    """`sequences[xrows]@context`, separated by commas. Raises ValueError with the reason."""
    cells = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:x(\d+))?@(\d+)", part.strip())
        if found is None:
            raise ValueError(f"{part!r} is not like 8@100 or 1x512@0")
        cell = Cell(int(found[1]), int(found[2] or 1), int(found[3]))
        if not 1 <= cell.sequences <= MAX_SEQUENCES:
            raise ValueError(f"{part!r} has not from 1 to {MAX_SEQUENCES} sequences")
        if not 1 <= cell.sequences * cell.rows <= BATCH_TOKENS:
            raise ValueError(f"{part!r} has not from 1 to {BATCH_TOKENS} rows in all")
        cells.append(cell)
    return cells


class Bench:
    """A model, opened."""

    def __init__(self, runner: "TorchRunner", opened: Opened) -> None:
        self._runner = runner
        self._opened = opened
        self._vocab_size = opened.facts.tokenizer.vocab_size
        self._random = np.random.default_rng(1)

    def time_step(self, cell: Cell, seconds: float) -> Timing:
        """The same step again and again, for so long."""
        handles = [self._filled(cell.context) for _ in range(cell.sequences)]
        taken: list[float] = []
        stages: dict[str, float] = {}
        until = time.monotonic() + seconds
        while len(taken) < 2 * _WARM_UP or time.monotonic() < until:
            if len(taken) == _WARM_UP:
                stages = self._runner.stage_seconds()
            taken.append(self._forward(handles, cell.rows))
            for handle in handles:
                self._runner.truncate(handle, cell.context)
        for handle in handles:
            self._runner.release(handle)
        kept = taken[_WARM_UP:]
        after = self._runner.stage_seconds()
        means = {name: 1000 * (after[name] - before) / len(kept) for name, before in stages.items()}
        return Timing(1000 * statistics.median(kept), 1000 * min(kept), 1000 * statistics.fmean(kept), means)

    def time_engine(self, sequences: int, temperature: float) -> tuple[float, float]:
        """Answers of 64 tokens to prompts of 51: the median decode step and what the engine adds to it, in ms."""
        forwards: list[float] = []
        stepper = Stepper(
            self._runner, self._opened, EngineConfig(), lambda *note: forwards.append(note[3]), time.monotonic
        )
        for number in range(sequences):
            sampling = SamplingParams(number, max_tokens=_ANSWER_TOKENS, temperature=temperature, ignore_eos=True)
            stepper.add(EngineRequest(str(number), TokenPrompt(tuple(self._tokens(_PROMPT_TOKENS))), sampling))
        turns: list[float] = []
        while stepper.has_work:
            started = time.perf_counter()
            plan = stepper.schedule()
            stepper.commit(plan, stepper.forward(plan))
            stepper.take_emissions()
            turns.append(time.perf_counter() - started)
        stepper.clear_cache()
        pairs = list(zip(forwards, turns, strict=True))[-_ANSWER_TOKENS // 2 :]
        step = statistics.median(forward for forward, _ in pairs)
        added = statistics.median(turn - forward for forward, turn in pairs)
        return 1000 * step, 1000 * added

    def _filled(self, context: int) -> Handle:
        handle = self._runner.create()
        if handle is None:
            raise RunnerError("there is no handle left")
        for start in range(0, context, BATCH_TOKENS):
            self._forward([handle], min(BATCH_TOKENS, context - start))
        return handle

    def _forward(self, handles: list[Handle], rows: int) -> float:
        """Seconds. Logits of the last row of each handle."""
        total = rows * len(handles)
        starts = np.array([self._runner.length(handle) for handle in handles], np.int32)
        batch = Batch(
            tokens=np.array(self._tokens(total), np.int32),
            handle_ids=np.repeat(np.array([handle.id for handle in handles], np.int32), rows),
            positions=(starts[:, None] + np.arange(rows)).ravel().astype(np.int32),
            logit_rows=np.arange(rows - 1, total, rows, dtype=np.int32),
        )
        started = time.perf_counter()
        result = self._runner.forward(batch)
        taken = time.perf_counter() - started
        if result.logits is None:
            raise RunnerError(f"the step was not done: {result.status}")
        return taken

    def _tokens(self, count: int) -> list[int]:
        ids: list[int] = self._random.integers(0, self._vocab_size, count).tolist()
        return ids


def step_rows(bench: Bench, cells: list[Cell], seconds: float) -> list[list[str]]:
    """A line for each cell; what no stage accounts for is last."""
    lines = []
    for cell in cells:
        timing = bench.time_step(cell, seconds)
        rate = 1000 * cell.sequences * cell.rows / timing.median
        stages = [*timing.stages.values()]
        figures = (timing.median, timing.least, *stages, timing.mean - sum(stages))
        lines.append([cell.name, f"{rate:.0f}", *(f"{figure:.2f}" for figure in figures)])
    return lines


@click.command()
@click.option("--cells", default=DEFAULT_CELLS, show_default=True, help="Steps: sequences[xrows]@context.")
@click.option("--engine", "sequences", default="1,8,32", show_default=True, help="Sequences in the engine; 0: none.")
@click.option("--seconds", type=click.FloatRange(0), default=3.0, show_default=True, help="Of each step.")
@click.option("--threads", type=click.IntRange(1), help="[default: one per processor]")
@click.option("--model", metavar="SOURCE", default=DEFAULT_SOURCE, show_default=True, help="File, folder or package.")
def command(cells: str, sequences: str, seconds: float, threads: int | None, model: str) -> None:
    """Measure steps of the torch runner, and what the engine adds to them."""
    try:
        wanted = parse_cells(cells)
        crowds = [number for number in map(int, sequences.split(",")) if number]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        from workers.runners.torch.runner import TorchRunner
    except ImportError as error:
        raise click.ClickException(f"the torch backend is not installed: {error}") from None
    context = max(_PROMPT_TOKENS + _ANSWER_TOKENS, *(cell.context + cell.rows for cell in wanted))
    runner = TorchRunner()
    started = time.monotonic()
    spec = RunnerSpec(
        "bench",
        resolve(model).location,
        context=context,
        sequences=MAX_SEQUENCES,
        threads=threads,
        batch_tokens=BATCH_TOKENS,
        kv_pages=MAX_SEQUENCES * num_pages(context),
    )
    opened = runner.open(spec)
    click.echo(f"{opened.facts.description}; opened in {time.monotonic() - started:.1f} s\n")
    bench = Bench(runner, opened)
    names = list(runner.stage_seconds())
    header = ["step", "tokens/s", "median ms", "least", *names, "outside" if names else "unknown"]
    click.echo(table(header, step_rows(bench, wanted, seconds)))
    lines = [
        [str(number), str(temperature), *(f"{figure:.2f}" for figure in bench.time_engine(number, temperature))]
        for number in crowds
        for temperature in (0.0, 1.0)
    ]
    if lines:
        click.echo()
        click.echo(table(["sequences", "temperature", "decode step ms", "engine adds ms"], lines))
    runner.close()


if __name__ == "__main__":
    sys.exit(command())
