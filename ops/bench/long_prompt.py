"""A long prompt into running chats: how long the others wait for their next token.

Every chat streams a long answer; when each of them is under way, one request with a long prompt comes. What counts are
the gaps between the pieces of the others' text while that prompt is read, against the median gap.
"""

import asyncio
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from ops.bench.answer import Sample
from ops.bench.arms import NAMES, make_arm
from ops.bench.connection import Target, ask, completion_request
from ops.bench.errors import ArmFailed, ArmUnavailable, RequestFailed
from ops.bench.markdown import table
from ops.bench.option_types import arm_names
from ops.bench.plan import BenchPlan, PeerPaths
from ops.bench.prompts import long_prompt, prompt
from ops.cli import loop
from ops.serving.plan import DEFAULT_SOURCE
from ops.serving.sources import resolve
from workers.runners.machine import num_processors

NUM_CHATS = 8
NUM_WARM_TOKENS = 32
CHAT_TOKENS = 512
LONG_ANSWER_TOKENS = 16
# Words of the prompts are 1.06 to 1.1 tokens each.
LONG_PROMPT_WORDS = 1400
CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One trial. Gaps in milliseconds: `median_ms` over all chats and their whole time, `worst_ms` while the prompt of
    `prompt_tokens` was read, which took `read_ms`."""

    prompt_tokens: int
    read_ms: float
    median_ms: float
    p95_ms: float
    worst_ms: float

    @property
    def ratio(self) -> float:
        return self.worst_ms / self.median_ms


def disturbance(chats: list[Sample], long: Sample) -> Disturbance:
    """What `long` did to the chats. A gap counts when any of it lies in the time in which the prompt was read."""
    everywhere, meanwhile = [], []
    for chat in chats:
        for before, after in zip(chat.content_at, chat.content_at[1:], strict=False):
            everywhere.append(1000 * (after - before))
            if after > long.sent_at and before < long.first_content_at:
                meanwhile.append(1000 * (after - before))
    ranked = sorted(meanwhile)
    return Disturbance(
        prompt_tokens=long.prompt_tokens,
        read_ms=1000 * long.ttft_s,
        median_ms=statistics.median(everywhere),
        p95_ms=ranked[int(0.95 * (len(ranked) - 1))],
        worst_ms=ranked[-1],
    )


async def one_trial(target: Target, number: int) -> Disturbance:
    """Start the chats, wait until each is under way, send the long prompt, and wait for all. Raises RequestFailed."""
    under_way = [asyncio.Event() for _ in range(NUM_CHATS)]
    counts = [0] * NUM_CHATS

    def note(chat: int) -> None:
        counts[chat] += 1
        if counts[chat] >= NUM_WARM_TOKENS // 4:
            under_way[chat].set()

    requests = [completion_request(target, prompt(number * NUM_CHATS + chat), CHAT_TOKENS) for chat in range(NUM_CHATS)]
    chats = [
        asyncio.create_task(ask(target, request, lambda chat=chat: note(chat)))  # type: ignore[misc]
        for chat, request in enumerate(requests)
    ]
    try:
        for event in under_way:
            await event.wait()
        long = await ask(target, completion_request(target, long_prompt(number, LONG_PROMPT_WORDS), LONG_ANSWER_TOKENS))
        return disturbance(await asyncio.gather(*chats), long)
    finally:
        for chat in chats:
            chat.cancel()
        await asyncio.gather(*chats, return_exceptions=True)


@click.command()
@click.option("--arms", callback=arm_names, default="ours-llama,ours-torch", show_default=True, help=", ".join(NAMES))
@click.option("--trials", type=click.IntRange(1), default=5, show_default=True, help="Long prompts for each arm.")
@click.option("--llama-server", type=click.Path(path_type=Path, dir_okay=False), help="Binary.")
def command(arms: tuple[str, ...], trials: int, llama_server: Path | None) -> None:
    """Measure what a long prompt does to eight running chats."""
    plan = BenchPlan(
        model=Path(resolve(DEFAULT_SOURCE).location),
        arms=arms,
        concurrency=(NUM_CHATS + 1,),
        shared=0,
        rounds=trials,
        requests=1,
        max_tokens=CHAT_TOKENS,
        threads=num_processors(),
        context=CONTEXT,
        peers=PeerPaths(llama_server),
    )
    rows: list[list[str]] = []

    async def measure() -> None:
        for name in arms:
            rows.extend(await _rows(name, plan))

    loop.run(measure())
    click.echo(table(["arm", "prompt", "read ms", "median gap ms", "p95 ms", "worst ms", "worst / median"], rows))


async def _rows(name: str, plan: BenchPlan) -> list[list[str]]:
    arm = make_arm(name, plan)
    try:
        arm.check()
        with tempfile.TemporaryDirectory(prefix="inferflux-bench-", ignore_cleanup_errors=True) as folder:
            async with arm.running(Path(folder)) as server:
                await one_trial(server.target, plan.rounds)  # the first one warms up
                return [_row(name, await one_trial(server.target, number)) for number in range(plan.rounds)]
    except (ArmUnavailable, ArmFailed, RequestFailed) as error:
        raise click.ClickException(f"{name}: {error}") from None


def _row(name: str, found: Disturbance) -> list[str]:
    figures = (found.read_ms, found.median_ms, found.p95_ms, found.worst_ms)
    return [name, str(found.prompt_tokens), *(f"{figure:.1f}" for figure in figures), f"{found.ratio:.2f}"]


if __name__ == "__main__":
    sys.exit(command())
