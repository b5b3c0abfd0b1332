"""Fixtures for all tests: a NATS server of the test's own, and our broker on it."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from broker.connection import Connection
from broker.roles import Role
from broker.topology import Topology
from schemas.control import ModelCard
from tests.support.counts import full_or
from tests.support.nats import NatsServer, start_nats

# A process of the product serves models of one backend, this one those of all. llama.cpp loads the configuration of AMX
# tiles once for each thread, and PyTorch's libraries, whose threads are the same, leave none.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX512_E2")

# No test asserts a time, and a machine may be busy. New examples are looked for where full counts are asked for.
hypothesis.settings.register_profile("reduced", deadline=None, derandomize=True)
hypothesis.settings.register_profile("full", deadline=None)
hypothesis.settings.load_profile(full_or("full", reduced="reduced"))


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A running server without streams, gone with the test."""
    server = await start_nats(tmp_path)
    yield server
    await server.close()


@dataclass(frozen=True)
class Broker:
    """A server with the topology applied for `model`, and a connection per role that most tests need."""

    server: NatsServer
    model: ModelCard
    topology: Connection
    edge: Connection
    worker: Connection

    async def apply(self, *models: ModelCard, fleet_slots: int = 4) -> None:
        """Apply the topology again, for `model` when none is given."""
        await Topology(self.topology).apply(models or (self.model,), fleet_slots)


@pytest.fixture
async def broker(nats_server: NatsServer) -> Broker:
    model = ModelCard(id="echo", source="echo", backend="echo", default=True, created=1_700_000_000)
    roles = [await nats_server.connect(role) for role in (Role.TOPOLOGY, Role.EDGE, Role.WORKER)]
    broker = Broker(nats_server, model, *roles)
    await broker.apply()
    return broker
