"""A B A B: every arm once a round, started, warmed up, measured with every load, stopped."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ops.bench.arm import Arm, Server
from ops.bench.closed_loop import closed_loop
from ops.bench.cpu_time import cpu_seconds
from ops.bench.errors import ArmFailed, RequestFailed
from ops.bench.plan import BenchPlan, Kind, Load
from ops.bench.prompts import long_prompts, prompts, prompts_that_share
from ops.bench.summary import Summary, summarise

Say = Callable[[str], None]


@dataclass(slots=True)
class Results:
    """What came out. `rounds[arm][load]` has one summary a round; a failed arm has those from before."""

    rounds: dict[str, dict[str, list[Summary]]] = field(default_factory=dict)
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def note_facts(self, arm: str, facts: Mapping[str, str]) -> None:
        """What a server says of itself; one that is started anew, with other settings, may say another thing."""
        known = self.facts.get(arm, {})
        self.facts[arm] = {
            name: " / ".join(dict.fromkeys([*known.get(name, value).split(" / "), value]))
            for name, value in facts.items()
        }

    def add(self, arm: str, summary: Summary) -> None:
        self.rounds.setdefault(arm, {}).setdefault(summary.load, []).append(summary)


async def run_turns(arms: Sequence[Arm], plan: BenchPlan, results: Results, say: Say) -> None:
    """All rounds, into `results` as they come. An arm that fails is left out of the rounds that follow."""
    for number in range(1, plan.rounds + 1):
        for arm in arms:
            if arm.name in results.failures:
                continue
            say(f"round {number} of {plan.rounds}: {arm.name}")
            try:
                await _turn(arm, plan, results, say)
            except ArmFailed as error:
                results.failures[arm.name] = f"round {number}: {error}"
                say(f"  failed: {error}")


async def _turn(arm: Arm, plan: BenchPlan, results: Results, say: Say) -> None:
    with tempfile.TemporaryDirectory(prefix="inferflux-bench-", ignore_cleanup_errors=True) as folder:
        async with arm.running(Path(folder)) as server:
            results.note_facts(arm.name, server.facts)
            # The same texts for every turn: no arm is luckier, and none has seen them, being started anew.
            texts = {Kind.SHORT: prompts(), Kind.SHARED: prompts_that_share(), Kind.LONG: long_prompts()}
            await _measure(server, texts[Kind.SHORT], plan.warm_up)
            for load in plan.loads:
                repeated = replace(load, num_requests=load.num_requests * arm.num_repeats)
                summary = await _measure(server, texts[load.kind], repeated)
                results.add(arm.name, summary)
                say(f"  {load.name}: {summary.output_tokens_per_s:.1f} tokens/s in {summary.wall_s:.1f} s")


async def _measure(server: Server, texts: Iterator[str], load: Load) -> Summary:
    before = cpu_seconds(server.processes)
    try:
        result = await closed_loop(server.target, texts, load)
    except RequestFailed as error:
        ending = f" ({server.process.failure()})" if await server.process.has_ended() else ""
        raise ArmFailed(f"{load.name}: {error}{ending}") from None
    after = cpu_seconds(server.processes)
    return summarise(result, {name: after[name] - before[name] for name in after if name in before})
