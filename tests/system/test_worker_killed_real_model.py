"""A worker with a real model is killed at random tokens: the text up to the cut stands, and what follows fits to it.

On real kernels sums depend on how tokens are batched, so that a continued answer may differ from an undisturbed one. It
must be one that the model could have given: each of its tokens is fed to an engine that nobody disturbed, and has to be
among the best there.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from schemas.events import Finished
from tests.conformance.driver import MAX_LOGIT_GAP, Driver
from tests.support.counts import full_or
from tests.support.models import find_model, why_no_llama, why_no_mlx, why_no_torch
from tests.system.arrivals import Arrival, Client, News, open_client
from tests.system.broker_state import QueueState, queue_state
from tests.system.fleets import Supervised
from tests.system.journals import Journal, Journals, check_one_end, open_journals
from tests.system.stack import Stack, running, until
from workers.runners.base import RunnerSpec
from workers.runners.registry import create_runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(full_or(900, reduced=300))]

MODEL = "smollm2-135m"
WORKERS = 2
PROMPTS = (
    "The history of the printing press begins",
    "Once upon a time, in a village by the sea,",
    "To bake a loaf of bread you need",
    "Les montagnes sont hautes et la neige",
)
Report = Callable[[str, object], None]


@dataclass(frozen=True, slots=True)
class Setup:
    """How many answers of how many tokens are cut on a backend, not after token `max_cut`; settings of the model."""

    backend: str
    cuts: int
    num_tokens: int
    max_cut: int
    settings: dict[str, int] = field(default_factory=dict)

    def body(self, prompt: str) -> dict[str, object]:
        return {"model": MODEL, "prompt": prompt, "max_tokens": self.num_tokens, "temperature": 0, "ignore_eos": True}


LLAMA_CPP = Setup("llama_cpp", cuts=full_or(20, reduced=2), num_tokens=60, max_cut=44, settings={"threads": 1})
TORCH = Setup("torch", cuts=full_or(20, reduced=1), num_tokens=60, max_cut=44, settings={"threads": 1})
# On a processor it gives six tokens a second.
MLX = Setup("mlx", cuts=full_or(8, reduced=1), num_tokens=12, max_cut=8)


@pytest.fixture(
    params=[
        pytest.param(
            LLAMA_CPP, marks=[pytest.mark.llama, pytest.mark.skipif(bool(why_no_llama()), reason=why_no_llama() or "")]
        ),
        pytest.param(
            TORCH, marks=[pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]
        ),
        pytest.param(MLX, marks=[pytest.mark.mlx, pytest.mark.skipif(bool(why_no_mlx()), reason=why_no_mlx() or "")]),
    ],
    ids=lambda setup: setup.backend,
)
def setup(request: pytest.FixtureRequest) -> Setup:
    found: Setup = request.param
    return found


@pytest.fixture
def model() -> Path:
    path = find_model()
    assert path is not None
    return path


@pytest.fixture
def stack(tmp_path: Path, model: Path, setup: Setup) -> Iterator[Stack]:
    config = tmp_path / "server.yaml"
    settings = {"source": str(model), "sequences": 4, "context": 256, **setup.settings}
    config.write_text(json.dumps({"models": {MODEL: settings}}))
    options = ("--config", str(config), "--backend", setup.backend, "--workers", str(WORKERS))
    with running(tmp_path / "data", *options) as started:
        yield started


@pytest.fixture
def undisturbed(model: Path, setup: Setup) -> Iterator[Driver]:
    """The engine to compare with, in this process."""
    runner = create_runner(setup.backend)
    yield Driver(runner, runner.open(RunnerSpec(MODEL, str(model), context=256, sequences=2, **setup.settings)))
    runner.close()


class Asking:
    """One answer at a time, so that up to the cut nothing but the prompt decides how it is computed."""

    def __init__(self, stack: Stack, setup: Setup, client: Client, journals: Journals, news: News) -> None:
        self._stack = stack
        self._setup = setup
        self._client = client
        self._journals = journals
        self._news = news
        self._fleet = Supervised(stack, WORKERS)
        self.gaps: list[float] = []

    async def ask(self, prompt: str) -> Journal:
        arrival = await self._client.ask(self._stack.url, self._setup.body(prompt), key=f"whole {prompt}")
        return await self._look(arrival)

    async def ask_and_kill(self, prompt: str, number: int, num_pieces: int) -> Journal:
        """Kill the worker that answers once so many pieces have come."""
        await self._fleet.restore()
        arrival, key = Arrival(), f"cut {number}"
        asking = asyncio.create_task(self._client.ask(self._stack.url, self._setup.body(prompt), key=key, into=arrival))
        await self._news.until(lambda: len(arrival.pieces) >= num_pieces)
        holders = await self._journals.holders([key])
        killed_at = time.monotonic()
        await self._fleet.kill(holders[key])
        await asking
        gap = arrival.silence_after(killed_at, killed_at + 10)
        if gap is not None:
            self.gaps.append(gap)
        return await self._look(arrival)

    async def _look(self, arrival: Arrival) -> Journal:
        journal = await self._journals.read(arrival.request_id)
        check_one_end(journal)
        assert arrival.is_whole
        assert arrival.text == journal.fold.text()
        assert journal.fold.length == self._setup.num_tokens
        return journal


def distances_from_the_top(engine: Driver, prompt: str, journal: Journal) -> list[float]:
    """For each token of the answer, how far its logit is below the best there, given the ones before it."""
    tokenizer = engine.facts.tokenizer
    prompt_ids = tokenizer.encode(prompt, add_bos=tokenizer.bos_id is not None, parse_special=True)
    end = journal.fold.terminal
    assert isinstance(end, Finished) and end.usage.prompt_tokens == len(prompt_ids)
    handle = engine.create()
    logits = engine.feed(handle, [*prompt_ids, *end.token_ids[:-1]])[len(prompt_ids) - 1 :]
    engine.runner.release(handle)
    return [float(row.max() - row[token]) for row, token in zip(logits, end.token_ids, strict=True)]


async def cut(stack: Stack, setup: Setup, report: Report) -> list[tuple[str, Journal, Journal]]:
    """For each cut the prompt, and the journals of the undisturbed and of the cut answer."""
    seed = random.randrange(2**32)
    report("seed", seed)
    chances, news = random.Random(seed), News()
    async with open_client(news) as client, open_journals(stack) as journals:
        asking = Asking(stack, setup, client, journals, news)
        whole = {prompt: await asking.ask(prompt) for prompt in PROMPTS[: setup.cuts]}
        found = []
        for number in range(setup.cuts):
            prompt = PROMPTS[number % len(PROMPTS)]
            journal = await asking.ask_and_kill(prompt, number, chances.randint(1, setup.max_cut))
            found.append((prompt, whole[prompt], journal))
    report("gap", f"p50 {statistics.median(asking.gaps):.2f} s, max {max(asking.gaps):.2f} s")
    return found


def test_a_cut_answer_goes_on_as_the_model_would(
    stack: Stack, setup: Setup, undisturbed: Driver, report: Report
) -> None:
    found = asyncio.run(cut(stack, setup, report))
    until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
    worst, num_equal = 0.0, 0
    for prompt, whole, journal in found:
        [at] = journal.cuts
        assert journal.fold.token_ids[:at] == whole.fold.token_ids[:at]
        assert journal.fold.pieces[:at] == whole.fold.pieces[:at]
        distances = distances_from_the_top(undisturbed, prompt, journal)
        assert max(distances) <= MAX_LOGIT_GAP, (journal.request_id, at, distances)
        worst = max(worst, *distances[at:])
        num_equal += journal.fold.pieces == whole.fold.pieces
    report("cuts at token", [journal.cuts[0] for _, _, journal in found])
    report("farthest token from the top after a cut", f"{worst:.2f} logits")
    report("equal to the undisturbed answer to the end", f"{num_equal} of {len(found)}")
