"""One Idempotency-Key, many calls at two edges at the same moment: one execution, and everybody gets its answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

import httpx2
import pytest

from broker.connection import BrokerConfig, Connection
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS
from schemas.codec import decode_event
from schemas.events import Accepted, Event, Finished, Started
from tests.support.counts import full_or
from tests.support.waiting import until
from tests.system.beside import edge_beside
from tests.system.stack import KEY, Stack, echo_config, running

ROUNDS = full_or(20, reduced=3)
CALLS = 10
TOKENS = 20

pytestmark = pytest.mark.timeout(120)


class Fleet(NamedTuple):
    """Two edges on one broker, two workers that would both run a request that was queued twice."""

    stack: Stack
    urls: tuple[str, str]


class Answer(NamedTuple):
    """`body` is the whole answer, or the last chunk of a stream before `[DONE]`."""

    request_id: str
    text: str
    body: dict[str, Any]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("idempotency")
    config = echo_config(folder, "echo:random?rate=200", sequences=CALLS)
    with running(folder / "data", "--config", str(config), "--workers", "2") as stack, edge_beside(stack) as other:
        yield Fleet(stack, (stack.url, other.url))


@asynccontextmanager
async def clients_of(fleet: Fleet) -> AsyncIterator[list[httpx2.AsyncClient]]:
    """A client for each call, half of them at each edge, connected already, so that all calls arrive at once."""
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(httpx2.AsyncClient(base_url=fleet.urls[number % 2], timeout=60))
            for number in range(CALLS)
        ]
        await asyncio.gather(*(client.get("/livez") for client in clients))
        yield clients


async def post(client: httpx2.AsyncClient, key: str, body: dict[str, Any]) -> httpx2.Response:
    headers = {"authorization": f"Bearer {KEY}", "idempotency-key": key}
    return await client.post("/v1/completions", json=body, headers=headers)


def body_of(number: int, *, stream: bool) -> dict[str, Any]:
    body = {"model": "echo", "prompt": f"round {number}", "max_tokens": TOKENS, "seed": number, "ignore_eos": True}
    return {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body


def read(response: httpx2.Response, *, stream: bool) -> Answer:
    assert response.status_code == 200, response.text
    request_id = response.headers["x-request-id"]
    if not stream:
        body = response.json()
        return Answer(request_id, body["choices"][0]["text"], body)
    *chunks, done = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    decoded = [json.loads(chunk) for chunk in chunks]
    text = "".join(choice["text"] for chunk in decoded for choice in chunk["choices"])
    return Answer(request_id, text, decoded[-1])


async def journal_of(stack: Stack, request_id: str) -> list[Event]:
    """All records of a request, whichever edge wrote them."""
    config = BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR_FULL, "test", stack.data_dir / "nats" / "creds")
    connection = await Connection.open(config)
    try:
        subject = f"inferflux.tok.*.{request_id}.*"
        records = await read_records(connection, STREAM_TOKENS, subject, is_complete=lambda _: True)
    finally:
        await connection.close()
    return [decode_event(record.payload) for record in records]


def num_of(kind: type[Event], events: list[Event]) -> int:
    return sum(isinstance(event, kind) for event in events)


async def run_once(fleet: Fleet, number: int, *, stream: bool) -> None:
    before = fleet.stack.metric_sum("inferflux_completion_tokens_total")
    body, key = body_of(number, stream=stream), f"key-{number}"
    async with clients_of(fleet) as clients:
        answers = [read(each, stream=stream) for each in await asyncio.gather(*(post(c, key, body) for c in clients))]
        assert len({answer.text for answer in answers}) == 1
        assert all(answer == answers[0] for answer in answers)
        assert answers[0].body["usage"]["completion_tokens"] == TOKENS

        others = await asyncio.gather(*(post(c, key, body_of(number + 1, stream=stream)) for c in clients))
        assert {(each.status_code, each.json()["error"]["code"]) for each in others} == {(422, "idempotency_mismatch")}
        assert {each.headers["x-should-retry"] for each in others} == {"false"}
        again = await asyncio.gather(*(post(client, key, body) for client in clients[:2]))
        assert [read(each, stream=stream) for each in again] == answers[:2]

    async def is_one_execution() -> bool:
        events = await journal_of(fleet.stack, answers[0].request_id)
        assert num_of(Started, events) == num_of(Finished, events) == 1
        return num_of(Accepted, events) == 1  # that of an edge which came second goes a moment later

    await until(is_one_execution)
    assert fleet.stack.metric_sum("inferflux_completion_tokens_total") - before == TOKENS


_numbers = count(1)


@pytest.mark.parametrize("stream", [False, True])
def test_ten_calls_at_two_edges_are_one_execution(fleet: Fleet, stream: bool) -> None:
    for _ in range(ROUNDS):
        asyncio.run(run_once(fleet, next(_numbers), stream=stream))


def test_calls_of_different_keys_are_different_executions(fleet: Fleet) -> None:
    async def both() -> set[str]:
        async with clients_of(fleet) as clients:
            body = body_of(0, stream=False)
            answers = await asyncio.gather(*(post(client, f"own-{n}", body) for n, client in enumerate(clients)))
        return {read(answer, stream=False).request_id for answer in answers}

    assert len(asyncio.run(both())) == CALLS
