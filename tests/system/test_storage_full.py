"""The broker's storage is full: new requests are refused with the reason, and nothing that was accepted is lost."""

import asyncio
import json
import re
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import openai
import pytest

from tests.support.counts import full_or
from tests.system.ballast import empty_server, fill_server, load_server, roll_journals
from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import KEY, Stack, running, until

# They write the same.
SLOW, FAST = "slow", "fast"
WORKERS = 2
SLOTS = 3
RUNNING = WORKERS * SLOTS
QUEUED = 2
NUM_TOKENS = [400] * RUNNING + [20] * QUEUED
ALL = QueueState(RUNNING + QUEUED, RUNNING)
# Longer than presence and leases last, so that by then nothing but the storage can be the reason.
FULL_S = full_or(25, reduced=1)
# While a restarted server has no room either. A refusal takes the ten seconds in which the broker may come back.
REFUSALS = full_or(2, reduced=0)
# Above what a server's configuration takes, below what the journals of some seconds take.
MAX_BYTES_OF_A_FILE = 16 * 1024

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("full")
    config = folder / "server.yaml"
    sources = {SLOW: "echo:random?rate=40", FAST: "echo:random"}
    models = {name: {"backend": "echo", "source": source, "sequences": SLOTS} for name, source in sources.items()}
    config.write_text(json.dumps({"models": models}))
    limits = {"INFERFLUX_NATS__MAX_FILE_BYTES": "600MiB"}
    with running(folder / "data", "--config", str(config), "--workers", str(WORKERS), env=limits) as started:
        yield started
    shutil.rmtree(folder / "data" / "nats")  # it is large


@pytest.fixture(scope="module")
def expected(stack: Stack) -> list[str]:
    """The undisturbed answers."""

    async def ask() -> list[str]:
        async with client_of(stack) as client:
            return list(await asyncio.gather(*all_answers(client, FAST)))

    return asyncio.run(ask())


@asynccontextmanager
async def client_of(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=150) as client:
        yield client


async def answer(client: openai.AsyncOpenAI, model: str, number: int) -> str:
    stream = await client.completions.create(
        model=model,
        prompt=f"prompt {number}",
        max_tokens=NUM_TOKENS[number],
        temperature=0.9 if number % 2 else 0.0,
        seed=number,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    return "".join([choice.text async for chunk in stream for choice in chunk.choices])


def all_answers(client: openai.AsyncOpenAI, model: str = SLOW) -> list[asyncio.Task[str]]:
    """As many as the workers have room for, and some more that wait."""
    return [asyncio.create_task(answer(client, model, number)) for number in range(RUNNING + QUEUED)]


async def accepted(stack: Stack) -> None:
    await asyncio.to_thread(until, lambda: queue_state(stack) == ALL, "all run or wait")


async def settled(stack: Stack) -> None:
    await asyncio.to_thread(until, lambda: queue_state(stack) == QueueState(0, 0), "nothing is left")


def ask(client: openai.AsyncOpenAI) -> asyncio.Task[str]:
    """A small request more."""
    return asyncio.create_task(answer(client, FAST, RUNNING))


def reason(refused: asyncio.Task[str]) -> str:
    """What a new request was told."""
    error = refused.exception()
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code) == (503, "broker_unavailable")
    assert int(error.response.headers["retry-after"]) >= 1
    return error.message


def processes(stack: Stack) -> list[int]:
    """Those that must not be restarted."""
    run = stack.run
    return [run["edge"]["pid"], *(worker["pid"] for worker in run["workers"])]


async def served_again(client: openai.AsyncOpenAI, expected: list[str]) -> float:
    """Wait until a new request is answered; the seconds it took."""
    began = time.monotonic()
    while (await asyncio.wait({asked := ask(client)}))[0] and asked.exception() is not None:
        reason(asked)
        await asyncio.sleep(0.05)
    assert asked.result() == expected[RUNNING]
    return time.monotonic() - began


def test_a_full_server_refuses_and_loses_nothing(stack: Stack, expected: list[str]) -> None:
    asyncio.run(fill_and_empty(stack, expected))


async def ask_while_full(
    stack: Stack, client: openai.AsyncOpenAI, answers: list[asyncio.Task[str]]
) -> tuple[list[asyncio.Task[str]], list[asyncio.Task[str]]]:
    """Fill the server and ask for more; what was refused, and what was taken. `answers` go on."""
    await fill_server(stack)
    asked = [ask(client)]
    full_until = time.monotonic() + FULL_S
    while time.monotonic() < full_until:
        await asyncio.sleep(0.2)
        asked.append(ask(client))

    def num_open() -> int:
        return sum(not each.done() for each in (*answers, *asked))

    await asyncio.to_thread(until, lambda: queue_state(stack).num_messages == num_open(), "others are queued")
    assert num_open() > 0
    # What expires meanwhile makes room for a few bytes, so that now and then one may be accepted.
    refused = [each for each in asked if each.done() and each.exception() is not None]
    assert len(refused) > len(asked) / 2
    for each in refused:
        assert re.search("insufficient resources|resource limits exceeded|no room", reason(each))
    taken = [each for each in asked if each not in refused]
    return refused, taken


async def fill_and_empty(stack: Stack, expected: list[str]) -> None:
    async with client_of(stack) as client:
        pids = processes(stack)
        try:
            await load_server(stack)
            answers = all_answers(client)
            await accepted(stack)
            refused, taken = await ask_while_full(stack, client, answers)
        finally:
            await empty_server(stack)
        print(f"served again {await served_again(client, expected):.1f} s after there was room")
        assert await asyncio.gather(*answers) == expected
        assert set(await asyncio.gather(*taken)) <= {expected[RUNNING]}
        await settled(stack)
        assert processes(stack) == pids
        print(f"{len(refused)} refused, {len(taken)} accepted")


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
def test_a_server_that_cannot_write_is_started_again_and_nothing_is_lost(stack: Stack, expected: list[str]) -> None:
    asyncio.run(forbid_and_allow_writing(stack, expected))


async def forbid_and_allow_writing(stack: Stack, expected: list[str]) -> None:
    async with client_of(stack) as client:
        pids = processes(stack)
        answers = all_answers(client)
        await accepted(stack)
        server = stack.run["nats"]["pid"]
        limit_files(server, MAX_BYTES_OF_A_FILE)
        if REFUSALS:
            # Whatever the supervisor starts now can write no more than that either.
            limit_files(supervisor(stack), MAX_BYTES_OF_A_FILE)
        try:
            for _ in range(REFUSALS):
                await asyncio.wait({asked := ask(client)})
                assert "did not take the request" in reason(asked)
        finally:
            limit_files(supervisor(stack), resource.RLIM_INFINITY)
            if REFUSALS:
                limit_files(stack.run["nats"]["pid"], resource.RLIM_INFINITY)
        print(f"served again {await served_again(client, expected):.1f} s after there was room")
        assert await asyncio.gather(*answers) == expected
        await settled(stack)
        assert processes(stack) == pids
        assert stack.run["nats"]["pid"] != server


def supervisor(stack: Stack) -> int:
    assert stack.process is not None
    return stack.process.pid


def limit_files(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_journals_that_a_full_stream_drops_are_written_again(stack: Stack, expected: list[str]) -> None:
    asyncio.run(roll(stack, expected))


async def roll(stack: Stack, expected: list[str]) -> None:
    async with client_of(stack) as client:
        pids = processes(stack)
        answers = all_answers(client)
        await accepted(stack)
        await roll_journals(stack)
        assert await asyncio.gather(*answers) == expected
        await settled(stack)
        assert processes(stack) == pids
        assert "was dropped and is written again" in stack.log_path.read_text()
