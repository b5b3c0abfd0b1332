"""A worker is killed with a request in its socket that it has not claimed: no record tells that it had it."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from broker.pull import EXPIRES_S
from broker.subjects import STREAM_REQUESTS, consumer_name
from schemas.requests import PriorityClass
from tests.support.counts import full_or
from tests.support.waiting import until as eventually
from tests.system.arrivals import open_client
from tests.system.broker_state import QueueState, inspecting, queue_state
from tests.system.fleets import Fleet, Supervised, Unsupervised
from tests.system.journals import open_journals
from tests.system.load import Load
from tests.system.questions import Questions
from tests.system.stack import Stack, echo_config, running, until

WORKERS = 2
LOSSES = full_or(20, reduced=2)

Report = Callable[[str, object], None]
pytestmark = pytest.mark.timeout(full_or(600, reduced=120))


class Queue:
    """What the broker says of the requests: whether they are delivered, and how many were given back."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.num_given_back = 0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Queue"]:
        async with inspecting(self._stack) as self._connection:
            subject = f"$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.{STREAM_REQUESTS}.>"
            await self._connection.subscribe(subject, self._note)
            yield self

    async def _note(self, message: Msg) -> None:
        assert json.loads(message.data)["consumer"] == consumer_name("echo", PriorityClass.NORMAL)
        self.num_given_back += 1

    async def heard(self) -> None:
        """Wait until all that was announced is counted."""
        await self._connection.flush()

    async def is_all_delivered(self) -> bool:
        """Whether each worker got a request; False once their pulls have ended."""
        name = f"CONSUMER.INFO.{STREAM_REQUESTS}.{consumer_name('echo', PriorityClass.NORMAL)}"

        async def is_delivered() -> bool:
            return bool((await self._connection.api(name))["num_ack_pending"] == WORKERS)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * EXPIRES_S):
                await eventually(is_delivered)
                return True
        return False


async def lose_one(fleet: Fleet, load: Load, queue: Queue) -> float:
    """Kill a worker that stands still with a request in its socket. Seconds until the last answer began.

    Each worker that stands still catches one request with its open pull. Should it be between two pulls, try again.
    """
    while True:
        await fleet.restore()
        pids = fleet.pids()
        for pid in pids.values():
            os.kill(pid, signal.SIGSTOP)
        asking = [asyncio.create_task(load.ask()) for _ in range(WORKERS)]
        is_lost = await queue.is_all_delivered()
        victim, *others = pids
        for each in others:
            os.kill(pids[each], signal.SIGCONT)
        killed_at = time.monotonic()
        if is_lost:
            await fleet.kill(victim)
        else:
            os.kill(pids[victim], signal.SIGCONT)
        streams = await asyncio.gather(*asking)
        if is_lost:
            return max(stream.arrival.times[0] for stream in streams) - killed_at


async def lose(stack: Stack, fleet: Fleet, report: Report) -> None:
    async with open_client() as client, open_journals(stack) as journals, Queue(stack).watched() as queue:
        load = Load(stack, client, Questions(num_tokens=20), str(time.time_ns()))
        seconds = [await lose_one(fleet, load, queue) for _ in range(LOSSES)]
        found = await load.check(journals)
        await queue.heard()
    report("SIGKILL to the first token elsewhere", " ".join(f"{each:.2f}" for each in sorted(seconds)))
    # By the edge and not when the lease ran out, and no delivery that another worker had.
    assert queue.num_given_back == LOSSES
    assert all(len(journal.claims) == 1 for journal in found)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return echo_config(tmp_path_factory.mktemp("config"), "echo:random?rate=200", sequences=8)


def test_what_a_supervised_worker_had_not_claimed(tmp_path: Path, config: Path, report: Report) -> None:
    with running(tmp_path / "data", "--config", str(config), "--workers", str(WORKERS)) as stack:
        asyncio.run(lose(stack, Supervised(stack, WORKERS), report))
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


def test_what_a_worker_without_a_supervisor_had_not_claimed(tmp_path: Path, config: Path, report: Report) -> None:
    with (
        running(tmp_path / "data", "--config", str(config), "--workers", "0") as stack,
        Unsupervised(stack, config, WORKERS) as fleet,
    ):
        asyncio.run(lose(stack, fleet, report))
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
