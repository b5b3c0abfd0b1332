"""An edge as a process, and as its slow and dead clients meet it."""

import asyncio
import signal
import sys

import pytest

from producer.edge.output_filter import OutputFilter
from schemas.events import Cancelled
from schemas.requests import Identity
from tests.conftest import Broker
from tests.producer.conftest import Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import RawClient, events_until
from tests.producer.test_stream import StopAt, Upper, events_of, text_of

pytestmark = pytest.mark.nats

PROGRAM = """
import asyncio, sys, uvloop
from pathlib import Path
from broker.connection import BrokerConfig
from broker.roles import Role
from producer.config import EdgeConfig, KeySpec, MetricsConfig
from producer.edge.serve import run_edge

config = EdgeConfig(
    edge_id="e1", pepper=b"p", keys=(KeySpec("test-key"),), port=0, metrics=MetricsConfig(port=0), drain_timeout_s=20
)
broker = BrokerConfig(sys.argv[1], Role.EDGE, "e1", Path(sys.argv[2]))
uvloop.run(run_edge(config, broker, on_ready=lambda address: print(address.url, flush=True)))
print("done", flush=True)
"""


async def test_sigterm_drains_and_the_process_ends_well(broker: Broker) -> None:
    await put_model(broker)
    release = asyncio.Event()

    async def waits(run: Run) -> None:
        await run.say("a")
        await release.wait()
        await run.finish("b")

    async with running_worker(broker.worker, waits):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            broker.server.url,
            str(broker.server.credentials),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        port = 0
        while not port:
            line = (await process.stdout.readline()).decode()
            assert line, "the edge did not start"
            if line.startswith("http://localhost:"):
                port = int(line.rsplit(":", 1)[1])
        client = await until_streaming(port)
        process.send_signal(signal.SIGTERM)
        release.set()
        assert b'"content":"b"' in await client.read_until(b"[DONE]")
        await client.close()
        rest = (await process.communicate())[0].decode()
        assert rest.endswith("done\n")
        assert process.returncode == 0


async def until_streaming(port: int) -> RawClient:
    """A stream that has begun; the edge may not yet know its worker."""
    while True:
        client = await RawClient.connect(port, chat(stream=True))
        if b" 200 " in await client.read_until(b"\r\n"):
            await client.read_until(b'"content":"a"')
            return client
        await client.close()
        await asyncio.sleep(0.05)


async def test_a_client_that_reads_slowly_gets_everything(edge: Edge, worker: ScriptedWorker) -> None:
    piece = "x" * 2000

    async def floods(run: Run) -> None:
        for _ in range(40):
            await run.say(*(piece for _ in range(50)))
            await asyncio.sleep(0)
        await run.finish()

    worker.script = floods
    async with edge.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
        received = b""
        async for data in answer.aiter_bytes(65536):
            received += data
            await asyncio.sleep(0.001)
    assert len(text_of(events_of(received))) == 2000 * 2000


async def test_filters_stand_between_journal_and_client(broker: Broker) -> None:
    def upper(identity: Identity, model: str) -> OutputFilter:
        return Upper()

    def stop_at(identity: Identity, model: str) -> OutputFilter:
        return StopAt()

    async def never_ends(run: Run) -> None:
        await run.say("he", "ll", "o!", " and more")
        await run.cancelled.wait()
        await run.lease.ack()

    await put_model(broker)
    async with running_worker(broker.worker) as worker, running_edge(broker, filters=[stop_at, upper]) as edge:
        await until_served(edge)
        assert (await edge.post(chat("a b"))).json()["choices"][0]["message"]["content"] == "A B"
        assert text_of(events_of((await edge.post(chat("a b", stream=True))).content)) == "A B"
        worker.script = never_ends
        events = events_of((await edge.post(chat(stream=True))).content)
        assert events[-2][1]["choices"][0]["finish_reason"] == "content_filter"
        assert "more" not in text_of(events)
        await events_until(broker, Cancelled("filtered"))
        await worker.runs[-1].cancelled.wait()
