"""Workers are killed at random tokens: their streams go on elsewhere, and nobody can tell from the text."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.counts import full_or
from tests.system.arrivals import News, open_client
from tests.system.broker_state import QueueState, queue_state
from tests.system.fleets import Fleet, Supervised, Unsupervised
from tests.system.journals import Journal, Journals, open_journals
from tests.system.load import Load, Stream
from tests.system.questions import Questions
from tests.system.stack import Stack, echo_config, running, until

STREAMS = 12
WORKERS = 2
CUTS = full_or(200, reduced=6)

Report = Callable[[str, object], None]
pytestmark = pytest.mark.timeout(full_or(900, reduced=120))


@dataclass
class Kill:
    """One kill: when, the streams that the worker had, and when the last of them spoke again."""

    at: float
    streams: list[Stream]
    healed_at: float = 0.0


async def kill_at_random(load: Load, fleet: Fleet, journals: Journals, news: News, chances: random.Random) -> Kill:
    """Kill the worker that has most streams, at a moment that nobody chose, once all of them speak."""
    await fleet.restore()
    await news.until(lambda: load.all_speak)
    await asyncio.sleep(chances.uniform(0, 1))
    holders = await journals.holders(load.live_keys)
    victim = max(fleet.pids(), key=list(holders.values()).count)
    kill = Kill(time.monotonic(), [stream for stream in load.live if holders.get(stream.key) == victim])
    await fleet.kill(victim)
    # What was cut has to go on before the next kill: a request that kills three workers is put aside.
    await news.until(lambda: all(each.is_over or each.arrival.last_at > kill.at + 0.1 for each in kill.streams))
    kill.healed_at = time.monotonic()
    return kill


async def cut(stack: Stack, fleet: Fleet, report: Report) -> None:
    """Cut streams until there are enough, then compare every answer and look at every journal."""
    seed = random.randrange(2**32)
    report("seed", seed)
    chances, news = random.Random(seed), News()
    kills: list[Kill] = []
    async with open_client(news) as client, open_journals(stack) as journals:
        load = Load(stack, client, Questions(num_tokens=150), str(seed))
        async with load.running(STREAMS):
            while sum(len(kill.streams) for kill in kills) < CUTS:
                kills.append(await kill_at_random(load, fleet, journals, news, chances))
        found = await load.check(journals)
    tell(report, load, kills, found)
    assert sum(len(journal.cuts) for journal in found) >= CUTS // 2


def tell(report: Report, load: Load, kills: list[Kill], found: list[Journal]) -> None:
    gaps = [each.arrival.silence_after(kill.at, kill.healed_at) for kill in kills for each in kill.streams]
    known = [gap for gap in gaps if gap is not None]
    cuts = [(journal.fold.pieces, at) for journal in found for at in journal.cuts]
    report("streams, all equal", len(load.streams))
    report("kills", len(kills))
    report("cuts", len(cuts))
    report("of them while text was held back", sum(at > 0 and not pieces[at - 1] for pieces, at in cuts))
    report("gap", f"p50 {statistics.median(known):.2f} s, max {max(known):.2f} s")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Room for all streams on one worker, and for their successors.
    return echo_config(tmp_path_factory.mktemp("config"), "echo:random?rate=50", sequences=2 * STREAMS)


def test_streams_survive_the_kills_of_supervised_workers(tmp_path: Path, config: Path, report: Report) -> None:
    with running(tmp_path / "data", "--config", str(config), "--workers", str(WORKERS)) as stack:
        asyncio.run(cut(stack, Supervised(stack, WORKERS), report))
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


def test_streams_survive_the_kills_of_workers_that_only_their_edge_misses(
    tmp_path: Path, config: Path, report: Report
) -> None:
    with (
        running(tmp_path / "data", "--config", str(config), "--workers", "0") as stack,
        Unsupervised(stack, config, WORKERS) as fleet,
    ):
        asyncio.run(cut(stack, fleet, report))
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
