"""More than an edge can do: what is refused, and what it never holds."""

import asyncio
import contextlib
import json
import socket
import tracemalloc
from dataclasses import replace

import httpx2
import pytest

from producer.edge.protocol import _SURPLUS
from producer.edge.serve import _FURTHER_CONNECTIONS
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run
from tests.producer.test_leaving import until_queued
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def never(run: Run) -> None:
    await run.cancelled.wait()


def check_refused(answer: httpx2.Response) -> None:
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_full"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-request-id"]


async def test_a_burst_gets_as_many_places_as_there_are(broker: Broker) -> None:
    await put_model(broker, queue_max=1)
    async with running_worker(broker.worker, never, slots=4), running_edge(broker) as edge:
        await until_served(edge)
        answers = await asyncio.gather(*(edge.post(chat(timeout=3)) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [429] * 15 + [504] * 5
    for answer in answers:
        if answer.status_code == 429:
            check_refused(answer)


async def test_places_that_free_up_are_given_away_at_once(broker: Broker) -> None:
    """One after the other, each call finds the place that the one before it left, although the depth is older."""
    await put_model(broker, queue_max=0)
    async with running_worker(broker.worker, slots=1), running_edge(broker) as edge:
        await until_served(edge)
        for _ in range(20):
            assert (await edge.post(chat())).status_code == 200


async def test_the_token_cap_holds_over_all_edges(broker: Broker) -> None:
    await put_model(broker, queue_max_tokens=1000, no_worker="queue")
    # Nobody serves it, so four bytes count as a token.
    text = "x" * 4 * 600
    async with running_edge(broker) as edge, running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
        first = asyncio.create_task(edge.post(chat(text, timeout=6)))
        await until_queued(broker)
        refused = await edge.post(chat(text))
        check_refused(refused)
        assert "about 600 prompt tokens, where 1000 may" in refused.json()["error"]["message"]
        # A small one has room, and another class has room of its own.
        more = [chat("x" * 4 * 300), chat(text, priority=-1)]
        rest = [asyncio.create_task(edge.post({**body, "timeout": 6})) for body in more]
        await until_queued(broker, 3)

        async def refuses_too() -> bool:
            answer = await other.post(chat("x" * 4 * 200, timeout=0.3))
            return answer.status_code == 429

        await until(refuses_too)
        for call in (first, *rest):
            call.cancel()
        await asyncio.wait({first, *rest})

        async def takes_again() -> bool:
            return (await other.post(chat(text, timeout=0.1))).status_code == 504

        await until(takes_again)


async def test_prompts_are_not_held_while_their_calls_wait(broker: Broker) -> None:
    await put_model(broker, no_worker="queue", queue_max_tokens=0)
    megabyte, count = 1 << 20, 12
    async with running_edge(broker) as edge:
        body = json.dumps(chat("x" * megabyte)).encode()
        headers = {"content-type": "application/json"}
        tracemalloc.start()
        try:
            calls = [
                asyncio.create_task(edge.client.post("/v1/chat/completions", content=body, headers=headers))
                for _ in range(count)
            ]
            await until_queued(broker, count)

            async def is_small() -> bool:
                return tracemalloc.get_traced_memory()[0] < count * megabyte / 3

            await until(is_small)
        finally:
            tracemalloc.stop()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def slow_body(edge: Edge, size: int, sent: int) -> socket.socket:
    """A call whose body stops in the middle. It has been let in when this returns."""
    sock = socket.create_connection(("127.0.0.1", edge.address.port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    )
    await asyncio.to_thread(sock.sendall, head.encode())
    assert (await asyncio.to_thread(sock.recv, 1000)).startswith(b"HTTP/1.1 100 ")
    await asyncio.to_thread(sock.sendall, b" " * sent)
    return sock


async def test_bodies_on_their_way_are_bounded_together(broker: Broker) -> None:
    await put_model(broker)
    config = replace(CONFIG, max_body_bytes=100_000, body_buffer_bytes=150_000)
    async with running_worker(broker.worker), running_edge(broker, config) as edge:
        await until_served(edge)
        slow = await slow_body(edge, 100_000, 90_000)
        # While it is being read there is room for less than the largest body, and for none that is larger.
        await until(lambda: is_refused(edge, "x" * 80_000))
        assert (await edge.post(chat("x" * 10_000))).status_code == 200
        slow.close()
        await until(lambda: is_answered(edge, "x" * 80_000))


async def is_refused(edge: Edge, text: str) -> bool:
    answer = await edge.post(chat(text))
    if answer.status_code == 429:
        check_refused(answer)
        assert "150000 bytes" in answer.json()["error"]["message"]
    return answer.status_code == 429


async def is_answered(edge: Edge, text: str) -> bool:
    # Too long for the model, but read.
    return (await edge.post(chat(text))).status_code == 400


async def test_a_call_counts_from_its_first_header_on(broker: Broker) -> None:
    await put_model(broker)
    config = replace(CONFIG, max_concurrent=1)
    async with running_worker(broker.worker), running_edge(broker, config) as edge:
        await until_served(edge)
        slow = await slow_body(edge, 1000, 10)
        check_refused(await edge.post(chat()))
        slow.close()

        async def is_let_in() -> bool:
            return (await edge.post(chat())).status_code == 200

        await until(is_let_in)


async def test_each_prompt_counts_towards_what_an_edge_holds(broker: Broker) -> None:
    await put_model(broker)
    config = replace(CONFIG, max_concurrent=5)
    async with running_worker(broker.worker, never) as worker, running_edge(broker, config) as edge:
        await until_served(edge)
        body = {"model": "echo", "prompt": ["a"] * 4, "timeout": 3}
        first = asyncio.create_task(edge.post(body, "/v1/completions"))
        await until(lambda: len(worker.runs) == 4)
        check_refused(await edge.post({**body, "prompt": ["a", "b"]}, "/v1/completions"))
        assert (await first).status_code == 504


async def test_connections_are_bounded_and_probes_answered(broker: Broker) -> None:
    await put_model(broker)
    config = replace(CONFIG, max_concurrent=8)
    async with running_worker(broker.worker), running_edge(broker, config) as edge:
        await until_served(edge)
        limit = 2 * config.max_concurrent + _FURTHER_CONNECTIONS
        idle = [socket.create_connection(("127.0.0.1", edge.address.port)) for _ in range(limit)]
        async with httpx2.AsyncClient(base_url=edge.url, trust_env=False) as late:
            answer = await late.post("/v1/chat/completions", json=chat(), headers={"authorization": f"Bearer {KEY}"})
            check_refused(answer)
            assert answer.headers["connection"] == "close"
            assert (await late.get("/livez")).status_code == 200
        idle += [socket.create_connection(("127.0.0.1", edge.address.port)) for _ in range(_SURPLUS)]
        # Beyond what is told so, connections are closed without a word.
        over = socket.create_connection(("127.0.0.1", edge.address.port))
        over.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(over.recv, 1) == b""
        for sock in (*idle, over):
            sock.close()

        async def is_let_in() -> bool:
            return (await edge.post(chat())).status_code == 200

        await until(is_let_in)


async def test_calls_of_other_edges_are_followed_only_where_there_is_room(broker: Broker) -> None:
    await put_model(broker)
    narrow = replace(CONFIG, edge_id="e2", max_concurrent=1)
    async with (
        running_worker(broker.worker, never) as worker,
        running_edge(broker) as edge,
        running_edge(broker, narrow) as other,
    ):
        await until_served(edge)
        await until_served(other)
        far = [
            asyncio.create_task(edge.post(chat(str(number), timeout=20), Idempotency_Key=str(number)))
            for number in range(2)
        ]
        await until(lambda: len(worker.runs) == 2)
        joined = asyncio.create_task(other.post(chat("0", timeout=20), Idempotency_Key="0"))

        async def has_joined() -> bool:
            return "inferflux_live_calls 1.0" in (await other.client.get(other.address.metrics_url)).text

        await until(has_joined)
        check_refused(await other.post(chat("1", timeout=20), Idempotency_Key="1"))
        # Cancelling is always possible.
        answers = [await other.client.delete(f"/v1/requests/{run.request.request_id}") for run in worker.runs]
        assert [answer.json()["cancelled"] for answer in answers] == [True, True]
        assert {(await call).status_code for call in (*far, joined)} == {500}
