"""A B A B: every arm once a round, started, warmed up, measured with every load, stopped."""

import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from ops.bench.arm import Arm, Server
from ops.bench.closed_loop import closed_loop
from ops.bench.cpu_time import cpu_seconds
from ops.bench.errors import ArmFailed, RequestFailed
from ops.bench.plan import BenchPlan, Kind, Load
from ops.bench.prompts import LONG_TOKENS, long_prompts, prompts, prompts_that_share
from ops.bench.summary import Summary, summarise
from ops.bench.token_counts import Count, is_off

Say = Callable[[str], None]
# Asked of a running server when all has been measured.
Afterwards = Callable[[Arm, Server], Awaitable[None]]


@dataclass(slots=True)
class Results:
    """What came out. `rounds[arm][load]` has one summary a round; a failed arm has those from before. `rejected` are
    loads of an arm that were run and do not count, with the reason."""

    rounds: dict[str, dict[str, list[Summary]]] = field(default_factory=dict)
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    def note_facts(self, arm: str, facts: Mapping[str, str]) -> None:
        """What a server says of itself; one that is started anew, with other settings, may say another thing."""
        known = self.facts.get(arm, {})
        self.facts[arm] = {
            name: " / ".join(dict.fromkeys([*known.get(name, value).split(" / "), value]))
            for name, value in facts.items()
        }

    def add(self, arm: str, summary: Summary) -> None:
        self.rounds.setdefault(arm, {}).setdefault(summary.load, []).append(summary)


@dataclass(frozen=True, slots=True)
class Turns:
    """What all turns have in common. `count_tokens` is by the model's tokenizer, None where that cannot be asked.
    `afterwards` is called once for each arm, in its first turn."""

    plan: BenchPlan
    results: Results
    say: Say
    count_tokens: Count | None = None
    afterwards: Afterwards | None = None

    async def run(self, arms: Sequence[Arm]) -> None:
        """All rounds, into `results` as they come. An arm that fails is left out of the rounds that follow."""
        for number in range(1, self.plan.rounds + 1):
            for arm in arms:
                if arm.name in self.results.failures:
                    continue
                self.say(f"round {number} of {self.plan.rounds}: {arm.name}")
                try:
                    await self._turn(arm, is_first=number == 1)
                except ArmFailed as error:
                    self.results.failures[arm.name] = f"round {number}: {error}"
                    self.say(f"  failed: {error}")

    async def _turn(self, arm: Arm, *, is_first: bool) -> None:
        with tempfile.TemporaryDirectory(prefix="inferflux-bench-", ignore_cleanup_errors=True) as folder:
            async with arm.running(Path(folder)) as server:
                self.results.note_facts(arm.name, server.facts)
                # The same texts for every turn: no arm is luckier, and none has seen them, being started anew.
                texts = {
                    Kind.SHORT: prompts(),
                    Kind.SHARED: prompts_that_share(),
                    Kind.LONG: long_prompts(self.count_tokens),
                }
                # Its figures are nobody's.
                await self._measure(server, texts[Kind.SHORT], self.plan.warm_up)
                for load in self.plan.loads:
                    repeated = replace(load, num_requests=load.num_requests * arm.num_repeats)
                    self._take(arm, load, await self._measure(server, texts[load.kind], repeated))
                if is_first and self.afterwards is not None:
                    await self.afterwards(arm, server)

    def _take(self, arm: Arm, load: Load, summary: Summary) -> None:
        self.say(f"  {load.name}: {summary.output_tokens_per_s:.1f} tokens/s in {summary.wall_s:.1f} s")
        if arm.has_model_tokens and (reason := wrong_length(summary, load)):
            self.results.rejected[f"{arm.name} at {load.name}"] = reason
            self.say(f"  DOES NOT COUNT: {reason}")
        else:
            self.results.add(arm.name, summary)

    async def _measure(self, server: Server, texts: Iterator[str], load: Load) -> Summary:
        given = list(islice(texts, load.num_requests))
        before = cpu_seconds(server.processes)
        try:
            result = await closed_loop(server.target, iter(given), load)
        except RequestFailed as error:
            ending = f" ({server.process.failure()})" if await server.process.has_ended() else ""
            raise ArmFailed(f"{load.name}: {error}{ending}") from None
        after = cpu_seconds(server.processes)
        cpu_s = {name: after[name] - before[name] for name in after if name in before}
        expected = statistics.fmean(map(self.count_tokens, given)) if self.count_tokens is not None else None
        return summarise(result, cpu_s, expected)


def wrong_length(summary: Summary, load: Load) -> str:
    """Why its prompts are not those that were meant to be measured; empty when they are."""
    wanted: dict[float, str] = {LONG_TOKENS: "the load is for prompts of that many"} if load.kind is Kind.LONG else {}
    if summary.expected_prompt_tokens is not None:
        wanted[summary.expected_prompt_tokens] = "the model's tokenizer counts so many"
    for tokens, reason in wanted.items():
        if is_off(summary.prompt_tokens, tokens):
            return f"prompts of {summary.prompt_tokens:.0f} tokens by `usage`, not {tokens:.0f}: {reason}"
    return ""
