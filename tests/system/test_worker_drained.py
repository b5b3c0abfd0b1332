"""SIGTERM on a worker: it hands its work back and leaves, whatever it was doing, and its streams go on elsewhere."""

import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.support.counts import full_or
from tests.support.waiting import until as eventually
from tests.system.arrivals import News, open_client
from tests.system.broker_state import QueueState, queue_state
from tests.system.fleets import Drained, Unsupervised
from tests.system.journals import Journals, open_journals
from tests.system.load import Load
from tests.system.questions import Questions
from tests.system.stack import Stack, running, until

STREAMS = 8
DRAINS = full_or(20, reduced=1)
# A model for each state in which a worker may be told to leave.
MODELS = {
    "echo": {"source": "echo:random?rate=150", "sequences": 2 * STREAMS},
    "patient": {"source": "echo:random?rate=100&prefill_rate=100", "sequences": 4},
    "narrow": {"source": "echo:random?rate=100", "sequences": 2},
}

Report = Callable[[str, object], None]
pytestmark = pytest.mark.timeout(full_or(600, reduced=120))


@dataclass
class Place:
    """Two workers that nobody restarts, and what is asked of them."""

    stack: Stack
    fleet: Unsupervised
    drains: list[Drained] = field(default_factory=list)

    async def drain_holder(self, load: Load, journals: Journals) -> None:
        """Drain the worker that has most of the live streams."""
        held = list((await journals.holders(load.live_keys)).values())
        victim = max(self.fleet.pids(), key=held.count)
        assert victim in held
        await self.drain(victim)

    async def drain(self, worker_id: str) -> None:
        self.drains.append(await self.fleet.drain(worker_id))
        assert self.drains[-1].exit_code == 0

    @asynccontextmanager
    async def asked(self, questions: Questions, news: News) -> AsyncIterator[tuple[Load, Journals]]:
        """At the end every answer is compared, and nothing may be left in the queue."""
        await self.fleet.restore()
        async with open_client(news) as client, open_journals(self.stack) as journals:
            load = Load(self.stack, client, questions, str(time.time_ns()))
            yield load, journals
            await load.check(journals)
        await asyncio.to_thread(until, lambda: queue_state(self.stack) == QueueState(0, 0), "everything is settled")

    def tell(self, report: Report) -> None:
        seconds = [drained.seconds for drained in self.drains]
        report("exit", f"p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s, {len(seconds)} drains")
        self.drains.clear()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("drained")
    config = folder / "server.yaml"
    config.write_text(json.dumps({"models": {name: {"backend": "echo", **model} for name, model in MODELS.items()}}))
    with (
        running(folder / "data", "--config", str(config), "--workers", "0") as stack,
        Unsupervised(stack, config, 2) as fleet,
    ):
        yield Place(stack, fleet)


async def test_long_streams_go_on_elsewhere(place: Place, report: Report) -> None:
    news = News()
    async with place.asked(Questions(num_tokens=500), news) as (load, journals):
        async with load.running(STREAMS):
            for _ in range(DRAINS):
                await place.fleet.restore()
                await news.until(lambda: load.all_speak)
                await asyncio.sleep(random.uniform(0, 0.5))
                await place.drain_holder(load, journals)
        found = await load.check(journals)
    report("streams, all equal", len(load.streams))
    report("hand-backs", sum(len(journal.cuts) for journal in found))
    place.tell(report)


async def test_in_the_middle_of_a_prompt(place: Place, report: Report) -> None:
    news = News()
    async with place.asked(Questions(num_tokens=20, prompt_tokens=100, model="patient"), news) as (load, journals):
        for _ in range(DRAINS):
            await place.fleet.restore()
            asking = [asyncio.create_task(load.ask()) for _ in range(3)]
            await eventually(lambda: are_held(3, load, journals))
            await place.drain_holder(load, journals)
            await asyncio.gather(*asking)
    place.tell(report)


async def test_while_requests_are_claimed(place: Place, report: Report) -> None:
    """Requests arrive as the worker is told, so that some are in its socket, some read, some being claimed."""
    news = News()
    async with place.asked(Questions(num_tokens=20), news) as (load, _):
        for _ in range(DRAINS):
            await place.fleet.restore()
            asking = [asyncio.create_task(load.ask()) for _ in range(STREAMS)]
            await asyncio.sleep(random.uniform(0, 0.05))
            await place.drain(min(place.fleet.pids()))
            await asyncio.gather(*asking)
    place.tell(report)


async def test_with_a_queue_behind(place: Place, report: Report) -> None:
    news = News()
    async with place.asked(Questions(num_tokens=60, model="narrow"), news) as (load, journals):
        for _ in range(DRAINS):
            await place.fleet.restore()
            asking = [asyncio.create_task(load.ask()) for _ in range(10)]
            await eventually(lambda: are_held(4, load, journals))
            await place.drain_holder(load, journals)
            await asyncio.gather(*asking)
    place.tell(report)


async def are_held(count: int, load: Load, journals: Journals) -> bool:
    """Whether so many live streams are claimed by a worker."""
    return len(await journals.holders(load.live_keys)) == count
