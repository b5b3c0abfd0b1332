"""What a call has taken from its limits comes back, whichever way it ends; and administrators change limits live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from schemas.errors import ErrorCode, ServingError
from schemas.policy import LimitSet
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, KEYS, Edge, chat, put_model, running_edge, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.support.waiting import until

pytestmark = pytest.mark.nats

LIMITS = LimitSet(requests_per_minute=50, tokens_per_minute=5_000, concurrent_requests=4, tokens_per_day=50_000)
PATH = "/v1/admin/rate_limit"


@asynccontextmanager
async def _edge(broker: Broker, limits: LimitSet = LIMITS, **config: Any) -> AsyncIterator[Edge]:
    # Only one key has limits, so that what is used is its own.
    keys = (replace(KEYS[0], limits=limits), *KEYS[1:])
    async with running_edge(broker, replace(CONFIG, keys=keys, **config)) as edge:
        await until_served(edge)
        yield edge


async def _used(edge: Edge) -> dict[str, int]:
    answer = await edge.client.get(f"{PATH}/use", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    return {use["limit_name"]: use["used"] for use in answer.json()["data"]}


async def _until_used(edge: Edge, **wanted: int) -> None:
    async def is_so() -> bool:
        used = await _used(edge)
        return all(used[name] == number for name, number in wanted.items())

    await until(is_so)


async def test_a_whole_answer_is_charged_by_its_usage(broker: Broker, worker: ScriptedWorker) -> None:
    async with _edge(broker) as edge:
        answer = await edge.post(chat("one two three", max_tokens=400))
        total = answer.json()["usage"]["total_tokens"]
        await _until_used(
            edge, requests_per_minute=1, tokens_per_minute=total, concurrent_requests=0, tokens_per_day=total
        )


async def test_while_a_call_runs_all_that_it_may_come_to_is_reserved(broker: Broker, worker: ScriptedWorker) -> None:
    never = asyncio.Event()

    async def waits(run: Run) -> None:
        await run.say("a", "b")
        await never.wait()

    worker.script = waits
    async with _edge(broker) as edge:
        call = asyncio.create_task(edge.post(chat("x", max_tokens=400)))
        await worker.started.wait()
        used = await _used(edge)
        assert used["concurrent_requests"] == 1
        assert used["tokens_per_minute"] > 400
        [run] = worker.runs
        cancelled = await edge.client.delete(f"/v1/requests/{run.request.request_id}")
        assert cancelled.json()["cancelled"]
        await call
        # It was begun: its prompt, as estimated, and the two tokens.
        prompt = used["tokens_per_minute"] - 400
        await _until_used(edge, concurrent_requests=0, tokens_per_minute=prompt + 2, tokens_per_day=prompt + 2)


async def test_a_failed_call_gives_back_what_it_did_not_use(broker: Broker, worker: ScriptedWorker) -> None:
    async def fails(run: Run) -> None:
        await run.fail(ServingError(ErrorCode.INTERNAL, "it broke"))

    worker.script = fails
    async with _edge(broker) as edge:
        assert (await edge.post(chat("x" * 40, max_tokens=400))).status_code == 500
        await _until_used(edge, requests_per_minute=1, concurrent_requests=0)
        assert (await _used(edge))["tokens_per_minute"] < 100


async def test_a_call_that_a_later_stage_refuses_is_not_charged(broker: Broker, worker: ScriptedWorker) -> None:
    gate = asyncio.Event()

    async def waits(run: Run) -> None:
        await gate.wait()
        await run.finish("done")

    worker.script = waits
    await put_model(broker, queue_max=0)
    async with _edge(broker, LimitSet(requests_per_minute=50, tokens_per_minute=50_000)) as edge:
        calls = []
        for _ in range(8):
            calls.append(asyncio.create_task(edge.post(chat("x", max_tokens=100))))
            await asyncio.wait([calls[-1]], timeout=0.3)
            if calls[-1].done():
                break
        refused = calls[-1].result()
        assert refused.json()["error"]["code"] == "queue_full"
        assert "x-ratelimit-remaining-requests" in refused.headers
        await _until_used(edge, requests_per_minute=len(calls) - 1)
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*calls[:-1])} == {200}


async def test_calls_that_join_one_execution_are_charged_once(broker: Broker, worker: ScriptedWorker) -> None:
    async with _edge(broker, LimitSet(requests_per_minute=50)) as edge:
        answers = await asyncio.gather(*(edge.post(chat("a b"), Idempotency_Key="k") for _ in range(4)))
        answers.append(await edge.post(chat("a b"), Idempotency_Key="k"))
        assert {answer.status_code for answer in answers} == {200}
        await _until_used(edge, requests_per_minute=1)


@pytest.mark.parametrize("stream", [False, True])
async def test_one_after_the_other_is_never_two_at_a_time(broker: Broker, worker: ScriptedWorker, stream: bool) -> None:
    async with _edge(broker, LimitSet(concurrent_requests=1)) as edge:
        for _ in range(25):
            answer = await edge.post(chat("a b c", stream=stream))
            assert answer.status_code == 200, answer.text


async def test_more_at_a_time_than_may_be_are_refused(broker: Broker, worker: ScriptedWorker) -> None:
    gate = asyncio.Event()

    async def waits(run: Run) -> None:
        await gate.wait()
        await run.finish("done")

    worker.script = waits
    async with _edge(broker, LimitSet(concurrent_requests=2)) as edge:
        calls = [asyncio.create_task(edge.post(chat())) for _ in range(2)]
        await until(lambda: len(worker.runs) == 2)
        refused = await edge.post(chat())
        assert refused.json()["error"]["code"] == "rate_limited"
        assert "2 requests at a time" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1
        gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200, 200]


async def test_limits_survive_a_broker_that_forgets_them(broker: Broker, worker: ScriptedWorker) -> None:
    async with _edge(broker, LimitSet(requests_per_minute=3)) as edge:
        assert [(await edge.post(chat())).status_code for _ in range(3)] == [200] * 3
        await broker.server.restart()
        await broker.apply()  # as `up` does
        await until_served(edge)

        async def is_refused() -> bool:
            answer = await edge.post(chat())
            assert answer.status_code in (429, 503), answer.text
            return answer.status_code == 429

        await until(is_refused)


async def test_without_a_broker_nothing_is_admitted(broker: Broker, worker: ScriptedWorker) -> None:
    async with _edge(broker, LimitSet(requests_per_minute=3)) as edge:
        assert (await edge.post(chat())).status_code == 200
        await broker.server.kill()
        answer = await edge.post(chat())
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] in ("broker_unavailable", "no_worker")
        assert int(answer.headers["retry-after"]) >= 1
        await broker.server.start()


async def test_far_from_its_limit_a_call_is_refused_all_the_same(broker: Broker, worker: ScriptedWorker) -> None:
    """Its edge believes that there is room, and learns better while it writes the journal."""
    config = replace(CONFIG, keys=(replace(KEYS[0], limits=LimitSet(requests_per_minute=20)), *KEYS[1:]))
    async with running_edge(broker, config) as one, running_edge(broker, replace(config, edge_id="e2")) as two:
        await until_served(one)
        await until_served(two)
        assert (await one.post(chat())).status_code == 200
        statuses = [answer.status_code for answer in await asyncio.gather(*(two.post(chat()) for _ in range(19)))]
        assert statuses == [200] * 19
        refused = await asyncio.gather(*(one.post(chat()) for _ in range(5)))
        assert {answer.status_code for answer in refused} == {429}
        assert {answer.json()["error"]["code"] for answer in refused} == {"rate_limited"}
        assert "x-ratelimit-remaining-requests" in refused[0].headers
        assert len(worker.runs) == 20
        await _until_used(one, requests_per_minute=20)


async def test_administrators_change_limits_of_all_edges(broker: Broker, worker: ScriptedWorker) -> None:
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    config = replace(CONFIG, policy=replace(CONFIG.policy, passphrase="of a test"))
    async with running_edge(broker, config) as one, running_edge(broker, replace(config, edge_id="e2")) as two:
        await until_served(one)
        await until_served(two)
        shown = (await one.client.get(PATH, headers=admin)).json()
        assert (shown["object"], shown["source"], shown["requests_per_minute"]) == ("rate_limit", "file", 0)
        assert (await one.client.put(PATH, json={"requests_per_minute": 1})).status_code == 403
        changed = await one.client.put(PATH, json={"requests_per_minute": 2, "tokens_per_minute": 0}, headers=admin)
        assert changed.status_code == 200, changed.text
        assert (changed.json()["source"], changed.json()["requests_per_minute"]) == ("store", 2)

        async def is_there() -> bool:
            return bool((await two.client.get(PATH, headers=admin)).json()["requests_per_minute"] == 2)

        await until(is_there)
        statuses = [(await edge.post(chat())).status_code for edge in (one, two, one, two)]
        assert statuses == [200, 200, 429, 429]
        models = {"models": {"echo": {"requests_per_minute": 5}}, "requests_per_minute": 0}
        assert (await two.client.put(PATH, json=models, headers=admin)).json()["models"]["echo"][
            "requests_per_minute"
        ] == 5
        gone = await two.client.put(PATH, json={"models": {"echo": None}}, headers=admin)
        assert gone.json()["models"] == {}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_parameter", None),
        ({"requests_per_minute": -1}, "invalid_parameter", "requests_per_minute"),
        ({"requests_per_minute": "many"}, "invalid_parameter", "requests_per_minute"),
        ({"requests_per_minute": True}, "invalid_parameter", "requests_per_minute"),
        ({"requests_per_minute": 10**30}, "invalid_json", None),
        ({"requests_per_hour": 1}, "unknown_parameter", "requests_per_hour"),
        ({"tenants": {"a": {"requests": 1}}}, "unknown_parameter", "tenants.a.requests"),
        ({"tenants": {"": {}}}, "invalid_parameter", "tenants"),
        ({"tenants": []}, "invalid_parameter", "tenants"),
    ],
)
async def test_bad_limits_are_refused_by_name(edge: Edge, body: Any, code: str, param: str | None) -> None:
    answer = await edge.client.put(PATH, json=body, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, code), error
    assert param is None or error["param"].startswith(param)
