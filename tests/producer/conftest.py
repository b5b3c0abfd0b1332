"""A real edge on a real broker, with a scripted worker behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest

from broker.connection import BrokerConfig, Connection
from broker.registry import Registry
from broker.roles import Role
from producer.config import EdgeConfig, KeySpec, MetricsConfig, PolicyConfig, Scope
from producer.edge.serve import EdgeAddress, run_edge
from schemas.control import ModelCard
from tests.conftest import Broker
from tests.producer.scripted_worker import Script, ScriptedWorker, echo
from tests.support.waiting import until

KEY = "test-key"
ADMIN_KEY = "admin-key"
READ_KEY = "read-key"
OTHER_KEY = "other-key"

KEYS = (
    KeySpec(KEY, name="alice"),
    KeySpec(OTHER_KEY, name="bob"),
    KeySpec(READ_KEY, name="reader", scopes=(Scope.READ,)),
    KeySpec(ADMIN_KEY, name="root", scopes=(Scope.ADMIN, Scope.GENERATE)),
)
CONFIG = EdgeConfig(
    edge_id="e1",
    pepper=b"pepper",
    keys=KEYS,
    version="1.2.3",
    host="127.0.0.1",
    port=0,
    policy=PolicyConfig(passphrase="passphrase-of-tests"),
    metrics=MetricsConfig(port=0),
    drain_timeout_s=5.0,
)


def chat(text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Edge:
    """A running edge and a client for it."""

    address: EdgeAddress
    client: httpx2.AsyncClient
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return self.address.url

    async def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx2.Response:
        return await self.client.post(path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@contextlib.asynccontextmanager
async def running_edge(broker: Broker, config: EdgeConfig = CONFIG, **options: Any) -> AsyncIterator[Edge]:
    """An edge in this process, drained and gone afterwards."""
    broker_config = BrokerConfig(broker.server.url, Role.EDGE, config.edge_id, broker.server.credentials)
    ready: asyncio.Future[EdgeAddress] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(
        run_edge(config, broker_config, on_ready=ready.set_result, stop=stop, handle_signals=False, **options)
    )
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    client = httpx2.AsyncClient(
        base_url=ready.result().url, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
    )
    async with client:
        yield Edge(ready.result(), client, stop, task)
    stop.set()
    await task


@contextlib.asynccontextmanager
async def running_worker(
    connection: Connection, script: Script = echo, **options: Any
) -> AsyncIterator[ScriptedWorker]:
    worker = ScriptedWorker(connection, script, **options)
    await worker.start()
    yield worker
    await worker.close()


async def put_model(broker: Broker, **changes: Any) -> ModelCard:
    """Register the fixture's model, changed as given."""
    card = broker.model.model_copy(update=changes)
    registry = Registry(broker.edge, watch_workers=False)
    await registry.start()
    await registry.put_model(card)
    await registry.close()
    return card


async def until_served(edge: Edge) -> None:
    """Wait until the edge knows model and worker."""

    async def is_ready() -> bool:
        return (await edge.client.get("/readyz")).status_code == 200

    await until(is_ready)


@pytest.fixture
async def worker(broker: Broker) -> AsyncIterator[ScriptedWorker]:
    await put_model(broker, aliases=("gpt-4o-mini",))
    async with running_worker(broker.worker) as worker:
        yield worker


@pytest.fixture
async def edge(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG)) as edge:
        await until_served(edge)
        yield edge
