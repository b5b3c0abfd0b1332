"""A supervised worker is killed: `up` hands back what it held. No edge looks on; the test itself stands in for one."""

import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.msg import Msg

from broker.connection import BrokerConfig, Connection
from broker.journal import JournalHub, JournalView
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS
from broker.work_queue import WorkQueue
from schemas.events import Accepted, Started
from schemas.requests import SamplingParams
from tests.support.counts import full_or
from tests.support.requests import make_request
from tests.system.stack import Stack, echo_config, until

ROUNDS = full_or(10, reduced=2)
STREAMS = 4
WORKERS = 2
NUM_TOKENS = 150

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("supervised")
    config = echo_config(folder, "echo:random?rate=100")
    stack = Stack(folder / "data", "--config", str(config), "--workers", str(WORKERS), "--no-edge")
    stack.launch()
    try:
        until(lambda: "\nready" in stack.log_path.read_text(), "up is ready")
        yield stack
    finally:
        stack.stop()


class Client:
    """Submits and follows requests as an edge does, but watches over no worker."""

    def __init__(self, stack: Stack, edge: Connection, inspector: Connection) -> None:
        self._stack = stack
        self._inspector = inspector
        self._queue = WorkQueue(edge)
        self.hub = JournalHub(edge, "e1")
        self.handed_back: set[int] = set()

    async def start(self) -> None:
        await self.hub.start()
        subject = f"$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.{STREAM_REQUESTS}.>"
        await self._inspector.subscribe(subject, self._note)

    async def _note(self, message: Msg) -> None:
        self.handed_back.add(json.loads(message.data)["stream_seq"])

    async def flush(self) -> None:
        """Wait until all that was announced is noted."""
        await self._inspector.flush()

    async def submit(self, request_id: str, seed: int) -> tuple[JournalView, int]:
        sampling = SamplingParams(seed=seed, max_tokens=NUM_TOKENS, temperature=0.9, ignore_eos=True)
        request = make_request(request_id, sampling=sampling)
        view = self.hub.open(request_id)
        await self.hub.accept(Accepted(request_id, "k_test", "completions", "echo", request.created, {}, "", None))
        return view, await self._queue.submit(request)


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncIterator[Client]:
    login = stack.data_dir / "nats" / "creds"
    url = stack.run["nats"]["url"]
    edge, inspector = [
        await Connection.open(BrokerConfig(url, role, "test", login)) for role in (Role.EDGE, Role.INSPECTOR)
    ]
    client = Client(stack, edge, inspector)
    try:
        await client.start()
        yield client
    finally:
        await client.hub.close()
        await edge.close()
        await inspector.close()


async def started_by_another(view: JournalView, than: str) -> Started:
    while view.fold.started is None or view.fold.started.worker == than:
        await view.changed(10**9, None)
    return view.fold.started


async def text_of(view: JournalView) -> str:
    while view.fold.terminal is None:
        await view.changed(view.fold.length, None)
    return view.fold.text()


async def test_what_a_killed_worker_held_goes_on_elsewhere_at_once(stack: Stack) -> None:
    gaps_s: list[float] = []
    async with client_of(stack) as client:
        undisturbed = [(await client.submit(f"undisturbed{seed}", seed))[0] for seed in range(STREAMS)]
        expected = [await text_of(view) for view in undisturbed]
        for number in range(ROUNDS):
            running = [await client.submit(f"round{number}-{seed}", seed) for seed in range(STREAMS)]
            views = [view for view, _ in running]
            victim = await once_all_run(views)
            held = [(view, seq) for view, seq in running if worker_of(view) == victim]
            killed_at = kill(stack, victim)
            for view, _ in held:
                await started_by_another(view, victim)
                gaps_s.append(time.monotonic() - killed_at)
            assert [await text_of(view) for view in views] == expected
            await client.flush()
            assert {seq for _, seq in held} <= client.handed_back
            await until_replaced(stack, victim)
    print(f"SIGKILL to Started elsewhere: p50 {statistics.median(gaps_s):.3f} s, max {max(gaps_s):.3f} s")
    assert "left to run out" not in stack.log_path.read_text()


async def test_a_drained_worker_leaves_nothing_to_hand_back(stack: Stack) -> None:
    async with client_of(stack) as client:
        views = [(await client.submit(f"drained{seed}", seed))[0] for seed in range(STREAMS)]
        drained = await once_all_run(views)
        said = stack.log_path.read_text().count("handed back")
        os.kill(pid_of(stack, drained), signal.SIGTERM)
        for view in views:
            await text_of(view)
        await until_replaced(stack, drained)
    assert stack.log_path.read_text().count("handed back") == said


async def once_all_run(views: list[JournalView]) -> str:
    """Wait until all have a few tokens; the worker of the first one."""
    for view in views:
        while view.fold.length < 10:
            await view.changed(view.fold.length, None)
    return worker_of(views[0])


def worker_of(view: JournalView) -> str:
    assert view.fold.started is not None
    return view.fold.started.worker


def pid_of(stack: Stack, worker_id: str) -> int:
    (pid,) = [worker["pid"] for worker in stack.run["workers"] if worker["id"] == worker_id]
    return int(pid)


def kill(stack: Stack, worker_id: str) -> float:
    """SIGKILL; the time of it."""
    os.kill(pid_of(stack, worker_id), signal.SIGKILL)
    return time.monotonic()


async def until_replaced(stack: Stack, worker_id: str) -> None:
    def is_replaced() -> bool:
        ids = {worker["id"] for worker in stack.run["workers"]}
        return len(ids) == WORKERS and worker_id not in ids

    await asyncio.to_thread(until, is_replaced, "another worker is there")
