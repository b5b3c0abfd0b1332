"""The configuration of a running edge, changed: new rules hold, streams go on, and a bad file changes nothing."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Broker
from tests.producer.conftest import put_model, running_worker
from tests.producer.scripted_worker import Run, echo
from tests.support.edge_process import EdgeProcess, edge_process
from tests.support.waiting import until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180)]

OPEN = {"scopes": ["generate", "read"]}
ADMIN = {"scopes": ["admin", "generate", "read"]}


def first_document(folder: Path) -> dict[str, Any]:
    (folder / "dora.key").write_text("key-of-dora-1")
    keys = {
        "alice": {"key": "key-of-alice", **OPEN},
        "bob": {"key": "key-of-bob", **OPEN},
        "root": {"key": "key-of-root", **ADMIN},
        "dora": {"key_file": str(folder / "dora.key"), **OPEN},
    }
    return {
        "auth": {"api_keys": keys},
        "logging": {"level": "error"},
        "registry": {"poll_interval_ms": 3_600_000},
    }


def changed_document(folder: Path) -> dict[str, Any]:
    document = copy.deepcopy(first_document(folder))
    del document["auth"]["api_keys"]["bob"]
    document["auth"]["api_keys"]["carol"] = {"key": "key-of-carol", **OPEN}
    document["auth"]["rate_limit_per_minute"] = 1
    document["guardrails"] = {"blocklist": ["forbidden"]}
    document["logging"]["level"] = "info"
    document["audit"] = {"level": "changes"}
    document["server"] = {"max_prompts": 3}
    document["nats"] = {"replicas": 3}
    return document


async def call(edge: EdgeProcess, key: str, text: str = "hello") -> httpx2.Response:
    async with edge.client(key) as client:
        return await client.post("/v1/completions", json={"model": "echo", "prompt": text})


async def stream(edge: EdgeProcess, key: str, begun: asyncio.Event) -> str:
    body = {"model": "echo", "prompt": "held", "stream": True}
    text = ""
    async with edge.client(key) as client, client.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            text += f"{line}\n"
            if "first" in line:
                begun.set()
    return text


async def reloads(edge: EdgeProcess, result: str) -> float:
    async with edge.client("key-of-root") as client:
        lines = (await client.get("/metrics")).text.splitlines()
    name = f'inferflux_config_reloads_total{{result="{result}"}} '
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_a_running_edge_takes_its_configuration_again(broker: Broker, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def script(run: Run) -> None:
        if run.prompt_text != "held":
            await echo(run)
            return
        await run.say("first")
        await gate.wait()
        if not run.cancelled.is_set():
            await run.finish(" last")

    await put_model(broker)
    async with (
        running_worker(broker.worker, script),
        edge_process(broker, tmp_path, first_document(tmp_path)) as edge,
    ):

        async def is_ready() -> bool:
            async with edge.client("key-of-alice") as client:
                return (await client.get("/readyz")).status_code == 200

        await until(is_ready)
        begun = [asyncio.Event(), asyncio.Event()]
        kept = asyncio.create_task(stream(edge, "key-of-alice", begun[0]))
        cut = asyncio.create_task(stream(edge, "key-of-bob", begun[1]))
        for event in begun:
            await event.wait()
        assert (await call(edge, "key-of-carol")).status_code == 401
        assert (await call(edge, "key-of-dora-1", "a forbidden word")).status_code == 200
        assert not edge.has_said("edge listens")

        edge.write(changed_document(tmp_path))
        edge.hang_up()
        await until(lambda: edge.has_said("configuration read again"))
        await until(lambda: edge.has_said("needs a restart: server.max_prompts, nats.replicas"))
        assert (await call(edge, "key-of-carol", "a forbidden word")).json()["error"]["code"] == "content_filter"
        assert (await call(edge, "key-of-carol")).status_code in (200, 429)  # what was refused may count too
        assert (await call(edge, "key-of-carol")).json()["error"]["code"] == "rate_limited"
        assert (await call(edge, "key-of-bob")).status_code == 401
        ended = await cut
        assert "[DONE]" not in ended and "invalid_api_key" in ended
        assert not kept.done()

        # Without a signal: the file is watched.
        before = await reloads(edge, "failed")
        edge.write("auth: {api_keys: 5}\n")
        await until(lambda: edge.has_said("auth.api_keys (server.yaml:1)"))
        edge.write("")
        await until(lambda: edge.has_said("it is empty"))
        edge.write({"logging": {"level": "info"}})
        await until(lambda: edge.has_said("no API key is configured any more"))
        assert await reloads(edge, "failed") >= before + 3
        assert (await call(edge, "key-of-bob")).status_code == 401
        assert (await call(edge, "key-of-carol")).status_code in (200, 429)

        # By the signal alone: the file of a key is not watched.
        document = changed_document(tmp_path)
        document["auth"]["rate_limit_per_minute"] = 0
        edge.write(document)

        async def has_no_limit() -> bool:
            return (await call(edge, "key-of-carol")).status_code == 200

        await until(has_no_limit)
        (tmp_path / "dora.key").write_text("key-of-dora-2")
        edge.hang_up()

        async def has_new_key() -> bool:
            return (await call(edge, "key-of-dora-2")).status_code == 200

        await until(has_new_key)
        assert (await call(edge, "key-of-dora-1")).status_code == 401
        assert await reloads(edge, "ok") >= 3

        gate.set()
        text = await kept
        assert "last" in text and text.rstrip().endswith("data: [DONE]")
        assert "key-of" not in (tmp_path / "edge.log").read_text()
