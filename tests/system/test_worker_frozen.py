"""A worker stands still for longer than its lease and wakes up when another has its work: it falls silent."""

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.counts import full_or
from tests.support.waiting import until as eventually
from tests.system.arrivals import News, open_client
from tests.system.broker_state import QueueState, queue_state
from tests.system.fleets import Unsupervised
from tests.system.journals import Journals, open_journals
from tests.system.load import Load, Stream
from tests.system.questions import Questions
from tests.system.stack import Stack, echo_config, running, until

STREAMS = 4
# A freeze outlasts a lease, so that several streams share one.
ROUNDS = full_or(5, reduced=1)

Report = Callable[[str, object], None]
pytestmark = pytest.mark.timeout(full_or(600, reduced=120))


class Round:
    """Streams that go from a first worker, which is frozen, over a second, which is killed, to a third."""

    def __init__(self, fleet: Unsupervised, load: Load, journals: Journals, news: News) -> None:
        self._fleet = fleet
        self._load = load
        self._journals = journals
        self._news = news
        self.streams: list[Stream] = []

    async def run(self, chances: random.Random) -> list[str]:
        """Returns the workers that must have had every stream, in order."""
        first = await asyncio.to_thread(self._fleet.start)
        asking = [asyncio.create_task(self._load.ask()) for _ in range(STREAMS)]
        await asyncio.sleep(0)
        self.streams = self._load.live
        await self._news.until(lambda: self._load.all_speak)
        await asyncio.sleep(chances.uniform(0, 0.5))

        # In this order: a second one may take longer to start than the streams have left.
        self._fleet[first].send(signal.SIGSTOP)
        second = await asyncio.to_thread(self._fleet.start)
        await self._are_held_by(second)
        if chances.random() < 0.5:  # else it wakes up while the second one is about to begin
            await self._all_speak_again()
        self._fleet[first].send(signal.SIGCONT)
        await eventually(lambda: self._fleet[first].log_path.read_text().count("is fenced by") == STREAMS)
        await self._all_speak_again()
        assert (await self._fleet.drain(first)).exit_code == 0

        await self._fleet.kill(second)
        third = await asyncio.to_thread(self._fleet.start)
        await asyncio.gather(*asking)
        assert (await self._fleet.drain(third)).exit_code == 0
        return [first, second, third]

    async def _are_held_by(self, worker_id: str) -> None:
        async def held() -> bool:
            holders = await self._journals.holders(self._load.live_keys)
            return list(holders.values()) == [worker_id] * STREAMS

        await eventually(held)

    async def _all_speak_again(self) -> None:
        told = [len(stream.arrival.pieces) for stream in self.streams]
        await self._news.until(
            lambda: all(len(stream.arrival.pieces) > n for stream, n in zip(self.streams, told, strict=True))
        )


async def freeze(stack: Stack, fleet: Unsupervised, report: Report) -> None:
    seed = random.randrange(2**32)
    report("seed", seed)
    chances, news = random.Random(seed), News()
    async with open_client(news) as client, open_journals(stack) as journals:
        load = Load(stack, client, Questions(num_tokens=250), str(seed))
        expected = []
        for _ in range(ROUNDS):
            expected += [await Round(fleet, load, journals, news).run(chances)] * STREAMS
        found = await load.check(journals)
    assert [journal.workers for journal in found] == expected
    report("streams, all equal", len(found))
    report("their takeovers", [journal.cuts for journal in found])
    report("tokens of fenced runs in the journals, ignored", sum(journal.num_words_of_the_fenced for journal in found))


def test_a_frozen_worker_falls_silent_and_its_successor_may_die(tmp_path: Path, report: Report) -> None:
    config = echo_config(tmp_path, "echo:random?rate=40", sequences=2 * STREAMS, no_worker="queue")
    with (
        running(tmp_path / "data", "--config", str(config), "--workers", "0") as stack,
        Unsupervised(stack, config, 0) as fleet,
    ):
        asyncio.run(freeze(stack, fleet, report))
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
