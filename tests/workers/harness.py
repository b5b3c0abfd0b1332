"""Both sides of a worker in one test: an edge's hub and queue, and intakes with the real echo engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

from broker.journal import JournalHub, JournalView
from broker.subjects import STREAM_REQUESTS
from broker.transitions import Transitions
from broker.work_queue import WorkQueue
from broker.worker_control import subscribe_cancels
from schemas.events import Accepted
from schemas.requests import Endpoint, GenerateRequest, Identity, SamplingParams, TextPrompt
from tests.conftest import Broker
from workers.config import WorkerConfig, WorkerModel
from workers.engine.config import FairnessConfig
from workers.intake import Intake
from workers.metrics import WorkerMetrics
from workers.probation import Probation
from workers.runners.base import RunnerSpec

EDGE = "e1"
SLOW = "echo:random?rate=40"


class EdgeSide:
    """Publishes requests and follows their journals."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.hub = JournalHub(broker.edge, EDGE)
        self.queue = WorkQueue(broker.edge)
        self._numbers = count()

    def request(self, text: str = "hello", *, max_tokens: int = 60, **changes: object) -> GenerateRequest:
        """An endless request, cut at `max_tokens`."""
        sampling = SamplingParams(seed=7, max_tokens=max_tokens, temperature=0.9, ignore_eos=True)
        request = GenerateRequest(
            request_id=f"r{next(self._numbers)}",
            edge=EDGE,
            model="echo",
            endpoint=Endpoint.COMPLETIONS,
            created=1_700_000_000,
            deadline_ms=int((time.time() + 60) * 1000),
            identity=Identity("k_test"),
            prompt=TextPrompt(text),
            sampling=sampling,
        )
        return replace(request, **changes)  # type: ignore[arg-type]

    async def submit(self, request: GenerateRequest) -> JournalView:
        view = self.hub.open(request.request_id, journaled=request.journaled)
        head = Accepted(request.request_id, "k_test", request.endpoint, request.model, request.created, {}, "", None)
        await self.hub.accept(head)
        await self.queue.submit(request)
        return view

    async def queue_is_empty(self) -> None:
        """Wait until nothing is queued and nothing unsettled."""
        while True:
            info = await self.broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
            if info["state"]["messages"] == 0:
                return
            await asyncio.sleep(0.02)


async def tokens(view: JournalView, length: int) -> None:
    """Wait until the journal holds at least `length` tokens, or its end."""
    while view.fold.length < length and view.fold.terminal is None:
        await view.changed(view.fold.length, None)


async def end_of(view: JournalView) -> str:
    """Wait for the terminal event and return the whole text."""
    while view.fold.terminal is None:
        await view.changed(view.fold.length, None)
    return view.fold.text()


@asynccontextmanager
async def edge_side(broker: Broker) -> AsyncIterator[EdgeSide]:
    side = EdgeSide(broker)
    await side.hub.start()
    try:
        yield side
    finally:
        await side.hub.close()


@asynccontextmanager
async def intake(
    broker: Broker,
    worker_id: str = "w1",
    *,
    source: str = SLOW,
    slots: int = 4,
    pull: bool = True,
    stuck_step_s: float = 60.0,
    fairness: FairnessConfig | None = None,
) -> AsyncIterator[Intake]:
    """A worker's intake that serves model `echo`, with the cancels it must hear."""
    config = WorkerConfig(worker_id, (), stuck_step_s=stuck_step_s, fairness=fairness or FairnessConfig())
    spec = RunnerSpec(model_id="echo", source=source, sequences=slots)
    model = WorkerModel(spec, "echo", "test", max_output_tokens=1024)
    made = Intake(broker.worker, Transitions(broker.worker, worker_id), config, model, WorkerMetrics(), Probation())
    await made.open()
    listening = await subscribe_cancels(broker.worker, made.cancel)
    broker.worker.on_reconnect(made.save_all)
    if pull:
        await made.pull()
    try:
        yield made
    finally:
        broker.worker.remove_on_reconnect(made.save_all)
        await listening.close()
        has_trouble = made.trouble is not None
        await made.drain()
        await made.close(join_engine=not has_trouble)
