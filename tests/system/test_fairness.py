"""A full worker, and a request of a higher class: it is served at once, and nobody can tell from the answers."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.counts import full_or
from tests.support.open_loop import Outcome, ask
from tests.system.stack import ADMIN_KEY, KEY, Stack, echo_config, running, until

pytestmark = pytest.mark.slow

SLOTS = 4
RATE = 100
NUM_TOKENS = full_or(400, reduced=150)
PREEMPTING = {"INFERFLUX_FAIRNESS_ENABLE_PREEMPTION": "true"}
TIMESLICE = 20


def start(folder: Path, env: dict[str, str]) -> Iterator[Stack]:
    config = echo_config(folder, f"echo:random?rate={RATE}", sequences=SLOTS)
    with running(folder / "data", "--config", str(config), env=env) as stack:
        yield stack


@pytest.fixture(scope="module")
def preempting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from start(tmp_path_factory.mktemp("preempting"), PREEMPTING)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from start(tmp_path_factory.mktemp("plain"), {})


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"INFERFLUX_FAIRNESS_MAX_TIMESLICE": str(TIMESLICE)}
    yield from start(tmp_path_factory.mktemp("sharing"), env)


def body(number: int, num_tokens: int = NUM_TOKENS, **fields: object) -> dict[str, object]:
    return {
        "prompt": f"prompt {number}",
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "stream": True,
        "seed": number,
        "temperature": 0.9,
        **fields,
    }


async def answer(stack: Stack, number: int, key: str = KEY, **fields: object) -> Outcome:
    outcome = await ask(stack.port, key, body(number, **fields))  # type: ignore[arg-type]
    assert outcome.is_whole, outcome
    return outcome


async def lows_and_another(stack: Stack, key: str, priority: int) -> tuple[list[Outcome], Outcome]:
    """SLOTS streams of class low, and once all of them run, a short one of another key or class."""
    before = stack.metric_sum("inferflux_completion_tokens_total")
    lows = [asyncio.create_task(answer(stack, number, priority=-5)) for number in range(SLOTS)]

    def all_run() -> bool:
        metrics = stack.metrics()
        busy = sum(value for name, value in metrics.items() if "worker_slots{" in name and 'state="busy"' in name)
        return busy == SLOTS and stack.metric_sum("inferflux_completion_tokens_total") > before + 2 * SLOTS

    await asyncio.to_thread(until, all_run, "every place is taken")
    other = await answer(stack, 100, key, num_tokens=10, priority=priority)
    return list(await asyncio.gather(*lows)), other


def text_of(outcome: Outcome) -> str:
    return "".join(
        json.loads(line[6:])["choices"][0]["text"]
        for line in outcome.text.splitlines()
        if line.startswith("data: {") and json.loads(line[6:])["choices"]
    )


async def undisturbed(stack: Stack) -> list[str]:
    return [text_of(each) for each in await asyncio.gather(*(answer(stack, number) for number in range(SLOTS)))]


def moved(stack: Stack) -> dict[str, float]:
    names = ("preemptions", "yields", "resumes")
    return {name: stack.metric_sum(f"inferflux_fairness_{name}_total") for name in names}


def test_a_high_request_is_served_at_once_and_the_others_go_on_as_if_nothing_was(preempting: Stack) -> None:
    expected = asyncio.run(undisturbed(preempting))
    lows, high = asyncio.run(lows_and_another(preempting, ADMIN_KEY, priority=9))
    assert all(high.ended_at < low.ended_at for low in lows)
    assert [text_of(low) for low in lows] == expected
    until(lambda: moved(preempting) == {"preemptions": 1, "yields": 0, "resumes": 1}, "the counters tell")


def test_without_preemption_it_waits_its_turn(plain: Stack) -> None:
    lows, high = asyncio.run(lows_and_another(plain, ADMIN_KEY, priority=9))
    assert any(low.ended_at < high.ended_at for low in lows)
    assert moved(plain) == {"preemptions": 0, "yields": 0, "resumes": 0}


def test_requests_of_one_class_take_turns(sharing: Stack) -> None:
    """A short one of the same class gets the place of one that has had a timeslice, long before any of them ends."""
    expected = asyncio.run(undisturbed(sharing))
    longs, short = asyncio.run(lows_and_another(sharing, KEY, priority=-5))
    assert all(short.ended_at < long.ended_at for long in longs)
    assert [text_of(long) for long in longs] == expected
    until(lambda: moved(sharing)["yields"] >= 1, "the counters tell")
    assert moved(sharing)["preemptions"] == 0
