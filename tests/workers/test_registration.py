"""A worker whose model is not registered says so, and serves once it is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from broker.connection import BrokerConfig
from broker.registry import Registry
from broker.roles import Role
from broker.topology import Topology
from broker.worker_control import WorkerControl
from schemas.control import ModelCard
from schemas.requests import SamplingParams
from tests.conftest import Broker
from tests.support.nats import NatsServer
from tests.support.waiting import until
from tests.workers.harness import edge_side, end_of
from workers.config import WorkerConfig, WorkerModel, WorkerReady
from workers.runners.base import RunnerSpec
from workers.worker import run_worker

pytestmark = pytest.mark.nats

CARD = ModelCard(id="late", source="echo", backend="echo", created=1_700_000_000)


@asynccontextmanager
async def running_worker(server: NatsServer) -> AsyncIterator[None]:
    """A whole worker that serves model `late`, in this process."""
    model = WorkerModel(RunnerSpec("late", "echo:repeat", sequences=2), "echo", "test", max_output_tokens=100)
    config = WorkerConfig("w1", (model,), metrics_port=0)
    ready: asyncio.Future[WorkerReady] = asyncio.get_running_loop().create_future()
    broker = BrokerConfig(server.url, Role.WORKER, "w1", server.credentials)
    task = asyncio.create_task(run_worker(config, broker, on_ready=ready.set_result))
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        await WorkerControl(await server.connect(Role.EDGE)).drain("w1")
        await task


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == "inferflux.worker"
    ]


async def register(broker: Broker) -> None:
    registry = Registry(broker.topology)
    await registry.start()
    await registry.put_model(CARD)
    await broker.apply(CARD)
    await registry.close()


async def test_a_worker_serves_as_soon_as_its_model_is_registered(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inferflux")
    async with running_worker(broker.server):
        await until(lambda: warnings_of(caplog) != [])
        assert len(warnings_of(caplog)) == 1
        assert "late is not registered" in warnings_of(caplog)[0]
        await register(broker)
        async with edge_side(broker) as edge:
            request = replace(edge.request("hello"), model="late", sampling=SamplingParams(seed=1))
            assert await end_of(await edge.submit(request)) == "hello"
            await edge.queue_is_empty()
    assert "late is registered" in caplog.text
    assert len(warnings_of(caplog)) == 1


async def test_a_registered_model_is_not_worth_a_word(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inferflux")
    await register(broker)
    async with running_worker(broker.server):
        await until(lambda: "late is registered" in caplog.text)
    assert warnings_of(caplog) == []


async def test_a_model_taken_out_is_told(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "inferflux")
    await register(broker)
    async with running_worker(broker.server):
        await until(lambda: "late is registered" in caplog.text)
        registry = Registry(broker.topology)
        await registry.start()
        await registry.delete_model("late")
        await until(lambda: warnings_of(caplog) != [])
        await registry.close()
    assert "late is not registered" in warnings_of(caplog)[0]


async def test_a_broker_without_topology_is_told_too(nats_server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async with running_worker(nats_server):
        await until(lambda: any("late is not registered" in line for line in warnings_of(caplog)))
        await Topology(await nats_server.connect(Role.TOPOLOGY)).apply([CARD], 2)
