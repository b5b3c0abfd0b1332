"""An offline batch over two edges, one of which is killed in the middle."""

import asyncio
import json
from pathlib import Path

import pytest

from broker.batch_publisher import BatchPublisher
from broker.connection import BrokerConfig, Connection
from broker.credentials import create_credentials
from broker.roles import Role
from tests.support.batches import batch_line
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.system.beside import Beside
from tests.system.stack import Stack, echo_config, fetch, running

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(180)]

LINES = 100


def _metric(edge: Beside, name: str) -> float:
    for line in str(fetch(f"{edge.url}/metrics")).splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    return 0.0


async def _connect(stack: Stack, role: Role, tenant: str | None = None) -> Connection:
    url = f"nats://127.0.0.1:{stack.nats_port}"
    return await Connection.open(BrokerConfig(url, role, "test", stack.data_dir / "nats" / "creds", tenant))


async def test_an_edge_is_killed_and_every_line_has_one_right_result(tmp_path: Path) -> None:
    create_credentials(tmp_path / "data" / "nats" / "creds", ("acme",))
    config = echo_config(tmp_path, "echo:repeat?rate=40", sequences=16)
    with running(tmp_path / "data", "--config", str(config)) as stack:
        edge = Beside(stack, "edge", "two", "--port", str(free_port()), "--config", str(config))
        connections = [await _connect(stack, Role.BATCH, "acme"), await _connect(stack, Role.INSPECTOR)]
        acme, inspector = BatchPublisher(connections[0], "acme"), connections[1]

        async def num_messages(stream: str) -> int:
            return int((await inspector.api(f"STREAM.INFO.{stream}"))["state"]["messages"])

        async def is_in_the_middle() -> bool:
            return await asyncio.to_thread(_metric, edge, 'inferflux_batch_lines_total{outcome="done"}') > 0

        for index in range(LINES):
            await acme.publish(batch_line("night", index, f"this is line {index}"))
        await until(is_in_the_middle)
        edge.kill()

        async def is_done() -> bool:
            return await num_messages("INFERFLUX_BATCH") == 0

        await until(is_done, every_s=0.1)
        assert await num_messages("INFERFLUX_RESULTS") == LINES
        for index in range(LINES):
            result = await acme.result("night", index)
            assert result is not None and result.status_code == 200, json.dumps(result and result.body)
            assert f"this is line {index}" in result.body["choices"][0]["message"]["content"]
        last = batch_line("night", LINES - 1, f"this is line {LINES - 1}")
        by_http = await asyncio.to_thread(fetch, f"{stack.url}/v1/chat/completions", body=last.body)
        assert result.body["choices"] == by_http["choices"]
        for connection in connections:
            await connection.close()
