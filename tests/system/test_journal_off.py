"""X-InferFlux-Journal: off, on real processes: the text is the same whatever is killed, and no file has any of it."""

import asyncio
import json
import os
import random
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import openai
import pytest

from broker.connection import BrokerConfig, Connection
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS
from schemas.codec import decode_event
from schemas.events import Delta, Event, Finished
from tests.support.counts import full_or
from tests.system.beside import Beside, edge_beside
from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import KEY, Stack, echo_config, running, until

STREAMS = 8
WORKERS = 2
NUM_TOKENS = 150
# As many that nobody has read them all before a process is killed, however slow this one is.
MANY_TOKENS = 1500
ROUNDS = full_or(20, reduced=1)

pytestmark = pytest.mark.timeout(full_or(400, reduced=60))
OFF = {"X-InferFlux-Journal": "off"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("journal-off")
    config = echo_config(folder, "echo:random?rate=200", sequences=STREAMS, no_worker="queue")
    with running(folder / "data", "--config", str(config), "--workers", str(WORKERS)) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> list[str]:
    """The text of each stream, journaled."""
    texts = asyncio.run(answers(stack, {}))
    assert len(set(texts)) == STREAMS
    return texts


def body(number: int, num_tokens: int = NUM_TOKENS) -> dict[str, Any]:
    return {
        "model": "echo",
        "prompt": f"prompt {number}",
        "max_tokens": num_tokens,
        "temperature": 0.9 if number % 2 else 0.0,
        "seed": number,
    }


async def answer(
    client: openai.AsyncOpenAI,
    number: int,
    headers: dict[str, str],
    reached: asyncio.Event,
    num_tokens: int = NUM_TOKENS,
) -> str:
    parts: list[str] = []
    stream = await client.completions.create(
        **body(number, num_tokens), stream=True, extra_body={"ignore_eos": True}, extra_headers=headers
    )
    async for chunk in stream:
        parts += [choice.text for choice in chunk.choices]
        if len(parts) >= 5:
            reached.set()
    return "".join(parts)


async def answers(stack: Stack, headers: dict[str, str], *, kill: int | None = None) -> list[str]:
    """The texts of all streams; once each has begun, process `kill` is killed."""
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        reached = [asyncio.Event() for _ in range(STREAMS)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(client, number, headers, reached[number])) for number in range(STREAMS)]
            if kill is not None:
                for event in reached:
                    await event.wait()
                await asyncio.sleep(random.uniform(0, 0.4))
                os.kill(kill, signal.SIGKILL)
        return [task.result() for task in tasks]


def until_all_workers_serve(stack: Stack) -> None:
    def all_serve() -> bool:
        slots = [value for name, value in stack.metrics().items() if name.startswith("inferflux_worker_slots{")]
        return len(stack.run["workers"]) == WORKERS and sum(slots) == WORKERS * STREAMS

    until(all_serve, "all workers serve")


def post(url: str, number: int, headers: dict[str, str], num_tokens: int = NUM_TOKENS) -> tuple[int, dict[str, Any]]:
    """Status and body of a call that is not streamed."""
    data = json.dumps({**body(number, num_tokens), "ignore_eos": True}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", data=data)
    for name, value in {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def _journal(stack: Stack, request_id: str) -> list[Event]:
    config = BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR_FULL, "test", stack.data_dir / "nats" / "creds")
    connection = await Connection.open(config)
    try:
        subject = f"inferflux.tok.*.{request_id}.*"
        records = await read_records(connection, STREAM_TOKENS, subject, is_complete=bool)
    finally:
        await connection.close()
    return [decode_event(record.payload) for record in records]


def journal(stack: Stack, answer: dict[str, Any]) -> list[Event]:
    """Of the call with this answer, which must have had a key, so that it is kept."""
    return asyncio.run(_journal(stack, answer["id"].removeprefix("cmpl-")))


def files_with(folder: Path, needles: list[bytes]) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(needle in content for content in [path.read_bytes()] for needle in needles)
    ]


def test_no_stream_and_no_file_has_any_of_the_text(stack: Stack) -> None:
    """A journaled call with the same text comes second: it shows that the text would have been found."""
    status, off = post(stack.url, 100, {**OFF, "Idempotency-Key": "off"})
    assert status == 200
    until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
    events = journal(stack, off)
    assert not any(isinstance(event, Delta) for event in events)
    assert [event.pieces for event in events if isinstance(event, Finished)] == [[]]
    store = stack.data_dir / "nats"
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    _, on = post(stack.url, 100, {"Idempotency-Key": "on"})
    assert on["choices"] == off["choices"]
    (finished,) = [event for event in journal(stack, on) if isinstance(event, Finished)]
    # A few tokens in a row, as pieces and as numbers, without the head of the list.
    needles = [
        msgpack.packb(values[start : start + 5])[1:]
        for values in (finished.pieces, finished.token_ids)
        for start in range(0, NUM_TOKENS - 5)
    ]
    until(lambda: files_with(store, needles), "what is journaled is found")
    assert not [path for path, content in before.items() if any(needle in content for needle in needles)]


def test_a_worker_is_killed(stack: Stack, undisturbed: list[str]) -> None:
    assert asyncio.run(answers(stack, OFF)) == undisturbed
    for _ in range(ROUNDS):
        until_all_workers_serve(stack)
        victim = random.choice(stack.run["workers"])["pid"]
        assert asyncio.run(answers(stack, OFF, kill=victim)) == undisturbed
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


def test_the_broker_is_killed(stack: Stack, undisturbed: list[str]) -> None:
    for _ in range(ROUNDS):
        until_all_workers_serve(stack)
        assert asyncio.run(answers(stack, OFF, kill=stack.run["nats"]["pid"])) == undisturbed
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


async def _read_until_killed(edge: Beside) -> None:
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        headers = [{**OFF, "Idempotency-Key": f"edge-{number}"} for number in range(STREAMS)]
        reached = [asyncio.Event() for _ in range(STREAMS)]
        tasks = [
            asyncio.create_task(answer(client, number, headers[number], reached[number], MANY_TOKENS))
            for number in range(STREAMS)
        ]
        await reached[0].wait()
        edge.kill()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(ends[0], Exception), ends[0]


def test_the_edge_is_killed(stack: Stack, undisturbed: list[str]) -> None:
    """Nobody can be told the text any more, so the work ends; whoever asks again is served anew."""
    until_all_workers_serve(stack)
    with edge_beside(stack) as edge:
        asyncio.run(_read_until_killed(edge))
        status, refusal = post(stack.url, 0, {**OFF, "Idempotency-Key": "edge-0"}, MANY_TOKENS)
        assert (status, refusal["error"]["code"]) == (410, "journal_expired")
        until(lambda: queue_state(stack) == QueueState(0, 0), "nothing is left in the queue")
    status, again = post(stack.url, 0, {**OFF, "Idempotency-Key": "edge-0"}, MANY_TOKENS)
    assert status == 200
    assert again["usage"]["completion_tokens"] == MANY_TOKENS
    # But for a character that ended with the last of fewer tokens.
    assert again["choices"][0]["text"].startswith(undisturbed[0][:-4])
