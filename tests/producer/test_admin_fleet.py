"""Workers, queues, and the requests of all edges, as an administrator sees and ends them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from ops.cli.inferctl import group
from ops.cli.program import main
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run
from tests.support.waiting import until

pytestmark = pytest.mark.nats

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
UNKNOWN = "0123456789abcdef0123456789abcdef"


async def hold(run: Run) -> None:
    """Says one word, and no more before somebody cancels it."""
    await run.say("one")
    await run.cancelled.wait()


async def asked(edge: Edge, method: str, path: str, **more: Any) -> Any:
    answer = await edge.client.request(method, f"/v1/admin/{path}", headers=ADMIN, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(edge: Edge, method: str, path: str, **more: Any) -> tuple[int, str, str | None]:
    answer = await edge.client.request(method, f"/v1/admin/{path}", headers=ADMIN, **more)
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@contextlib.asynccontextmanager
async def streaming(edge: Edge, text: str = "a b", **headers: str) -> AsyncIterator[tuple[str, asyncio.Task[str]]]:
    """A stream that has begun: the id of its request, and all that it says until its end."""
    body = chat(text, stream=True)
    more = {"x-inferflux-queue-updates": "on", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with edge.client.stream("POST", "/v1/chat/completions", json=body, headers=more) as answer:
        assert answer.status_code == 200

        async def read() -> str:
            return "".join([piece async for piece in answer.aiter_text()])

        reading = asyncio.create_task(read())
        yield answer.headers["x-request-id"], reading
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.fixture
async def one_place(broker: Broker) -> AsyncIterator[Edge]:
    """An edge with one worker, which holds one request at a time and ends none."""
    await put_model(broker, aliases=("gpt-4o-mini",), no_worker="queue")
    async with running_worker(broker.worker, hold, slots=1), running_edge(broker) as edge:
        await until_served(edge)
        yield edge


async def test_requests_of_all_edges_are_listed_and_cancelled(broker: Broker, one_place: Edge) -> None:
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other, streaming(one_place) as (running, told):

        async def states() -> dict[str, str]:
            return {each["id"]: each["state"] for each in (await asked(other, "GET", "requests"))["data"]}

        await until(lambda: _is(states(), {running: "running"}))
        async with streaming(other, authorization="Bearer other-key") as (waiting, also_told):
            await until(lambda: _is(states(), {running: "running", waiting: "queued"}))
            await until(lambda: _has_tokens(one_place, running))
            one, two = (await asked(one_place, "GET", "requests?model=gpt-4o-mini"))["data"]
            assert (one["worker"], one["edge"], one["tokens"], one["owner"]) == ("w1", "e1", 1, one["owner"])
            assert one["owner"] != two["owner"]
            assert (two["worker"], two["edge"], two["tokens"], two["priority"]) == (None, "e2", 0, "normal")
            assert two["deadline"] > one["age_s"] >= 0
            assert "a b" not in json.dumps([one, two])
            assert (await asked(other, "GET", f"requests/{running}"))["worker"] == "w1"
            limited = await asked(one_place, "GET", "requests?limit=1")
            assert ([each["id"] for each in limited["data"]], limited["truncated"]) == ([running], True)
            for query, expected in (
                ("state=queued", [waiting]),
                ("state=running", [running]),
                ("tenant=default", [running, waiting]),
                ("tenant=nobody", []),
            ):
                found = await asked(one_place, "GET", f"requests?{query}")
                assert ([each["id"] for each in found["data"]], found["truncated"]) == (expected, False), query

            # Each by the edge that did not take it.
            for edge, request_id, reading in ((one_place, waiting, also_told), (other, running, told)):
                answer = await asked(edge, "DELETE", f"requests/chatcmpl-{request_id}")
                assert answer == {"object": "request", "id": request_id, "cancelled": True}
                said = await reading
                assert "An administrator cancelled the request." in said
                assert '"code":"cancelled"' in said
                assert "[DONE]" not in said
                assert await refused(edge, "GET", f"requests/{request_id}") == (404, "request_not_found", None)
        await until(lambda: _is(states(), {}))
        records = (await asked(other, "GET", "audit?action=request.cancel"))["data"]
        assert {record["target"] for record in records} == {running, waiting}


async def test_all_prompts_of_a_call_end_together(one_place: Edge) -> None:
    body = {"model": "echo", "prompt": ["a", "b", "c"]}
    calling = asyncio.create_task(one_place.post(body, "/v1/completions"))

    async def ids() -> list[str]:
        return sorted(each["id"] for each in (await asked(one_place, "GET", "requests"))["data"])

    await until(lambda: _counts(ids(), 3))
    first, _, third = await ids()
    assert (await asked(one_place, "DELETE", f"requests/{third}"))["id"] == first
    answer = await calling
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "cancelled")
    await until(lambda: _counts(ids(), 0))


async def test_queues(one_place: Edge) -> None:
    async def normal() -> dict[str, Any]:
        (queue,) = (await asked(one_place, "GET", "queues"))["data"]
        assert (queue["model"], queue["queue_max"], queue["dead_letters"], queue["workers"]) == ("echo", 256, 0, 1)
        assert [each["priority"] for each in queue["classes"]] == ["high", "normal", "low", "batch"]
        return dict(queue["classes"][1])

    async with streaming(one_place):
        await until(lambda: _holds(normal(), waiting=0, in_hand=1))
        async with streaming(one_place, "some words that wait"):
            await until(lambda: _holds(normal(), waiting=1, in_hand=1))
            queue = await normal()
            assert queue["waiting_prompt_tokens"] > 0
            assert queue["oldest_age_s"] >= 0
    assert (await asked(one_place, "GET", "queues?model=gpt-4o-mini"))["data"][0]["model"] == "echo"
    assert await refused(one_place, "GET", "queues?model=absent") == (404, "model_not_found", "model")


async def test_a_worker_that_takes_no_orders_is_shown_and_not_waited_for(one_place: Edge) -> None:
    (worker,) = (await asked(one_place, "GET", "workers"))["data"]
    assert (worker["id"], worker["answers"], worker["num_requests"], worker["state"]) == ("w1", False, None, "serving")
    assert worker["models"][0]["slots"] == 1
    assert worker["models"][0]["busy"] is None
    cache = await asked(one_place, "GET", "cache")
    assert (cache["data"], cache["unanswered"]) == ([], ["w1"])
    assert (await asked(one_place, "POST", "cache/clear", json={}))["unanswered"] == ["w1"]


async def test_what_is_wrong_is_said(one_place: Edge) -> None:
    for path in ("workers/absent/drain", "workers/absent/cordon", "workers/absent/uncordon"):
        assert (await refused(one_place, "POST", path, json={}))[:2] == (404, "worker_not_found"), path
    expected: list[tuple[str, str, Any, tuple[int, str, str | None]]] = [
        ("GET", "workers/absent", None, (404, "worker_not_found", None)),
        ("POST", "workers/w1/drain", {"mode": "slowly"}, (400, "invalid_parameter", "mode")),
        ("POST", "workers/w1/drain", {"speed": 1}, (400, "unknown_parameter", "speed")),
        ("POST", "workers/w1/cordon", {}, (503, "worker_unavailable", None)),
        ("GET", "cache?worker=absent", None, (404, "worker_not_found", None)),
        ("GET", "cache?model=absent", None, (404, "model_not_found", "model")),
        ("POST", "cache/clear", {"worker": "absent"}, (404, "worker_not_found", None)),
        ("POST", "cache/warm", {}, (400, "invalid_parameter", None)),
        ("POST", "cache/warm", {"text": "a", "messages": []}, (400, "invalid_parameter", "messages")),
        ("POST", "cache/warm", {"text": 7}, (400, "invalid_parameter", "text")),
        ("POST", "cache/warm", {"text": "a", "model": "absent"}, (404, "model_not_found", "model")),
        ("POST", "cache/warm", {"text": "a"}, (503, "worker_unavailable", None)),
        ("GET", "requests?state=ended", None, (400, "invalid_parameter", "state")),
        ("GET", "requests?limit=0", None, (400, "invalid_parameter", "limit")),
        ("GET", "requests?colour=red", None, (400, "unknown_parameter", "colour")),
        ("GET", "requests?model=absent", None, (404, "model_not_found", "model")),
        ("GET", f"requests/{UNKNOWN}", None, (404, "request_not_found", None)),
        ("DELETE", f"requests/{UNKNOWN}", None, (404, "request_not_found", None)),
        ("DELETE", "requests/no such", None, (404, "request_not_found", None)),
    ]
    for method, path, body, answer in expected:
        more = {} if body is None else {"json": body}
        assert await refused(one_place, method, path, **more) == answer, (method, path, body)


async def test_inferctl_lists_and_cancels_requests(
    one_place: Edge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERCTL_HOST", one_place.url)
    monkeypatch.setenv("INFERCTL_API_KEY", ADMIN_KEY)

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, group, "inferctl", ["admin", "requests", *arguments])
        return code, capsys.readouterr().out

    def last(out: str) -> Any:
        """The edge is in this process and logs to the same output."""
        return json.loads(next(line for line in reversed(out.splitlines()) if line.startswith("{")))

    async with streaming(one_place) as (request_id, reading):

        async def is_listed() -> bool:
            code, out = await run("--list", "--state", "running", "--json")
            return code == 0 and [each["id"] for each in last(out)["data"]] == [request_id]

        await until(is_listed)
        code, table = await run()
        assert (code, request_id in table, "running" in table) == (0, True, True)
        code, shown = await run("--show", request_id, "--json")
        assert (code, last(shown)["id"]) == (0, request_id)
        code, said = await run("--cancel", request_id)
        assert (code, f"{request_id} cancelled\n" in said) == (0, True)
        assert "An administrator" in await reading
        assert (await run("--cancel", UNKNOWN))[0] == 1
        assert (await run("--cancel", UNKNOWN, "--state", "queued"))[0] == 2


async def _is(found: Any, expected: object) -> bool:
    return bool(await found == expected)


async def _counts(found: Any, number: int) -> bool:
    return len(await found) == number


async def _holds(found: Any, **expected: int) -> bool:
    return {**expected}.items() <= (await found).items()


async def _has_tokens(edge: Edge, request_id: str) -> bool:
    return bool((await asked(edge, "GET", f"requests/{request_id}"))["tokens"] == 1)
