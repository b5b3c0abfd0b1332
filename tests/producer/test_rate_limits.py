"""Limits over two real edges on a real broker; the worker is scripted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from producer.config import EdgeConfig, KeySpec
from schemas.policy import LimitSet, LimitsPolicy
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, OTHER_KEY, Edge, chat, running_edge, until_served
from tests.producer.scripted_worker import ScriptedWorker

pytestmark = pytest.mark.nats


def _limited(**limits: int) -> LimitsPolicy:
    return LimitsPolicy(per_key=LimitSet(**limits))


@asynccontextmanager
async def _edges(broker: Broker, limits: LimitsPolicy, **config: Any) -> AsyncIterator[tuple[Edge, Edge]]:
    first = replace(CONFIG, limits=limits, **config)
    async with running_edge(broker, first) as one, running_edge(broker, replace(first, edge_id="e2")) as two:
        await until_served(one)
        await until_served(two)
        yield one, two


async def _ask(edge: Edge, *, key: str = KEY, path: str = "/v1/chat/completions", **body: Any) -> httpx2.Response:
    asked = chat("one two three", **body) if "prompt" not in body else {"model": "echo", **body}
    path = "/v1/completions" if "prompt" in body else path
    return await edge.post(asked, path, authorization=f"Bearer {key}")


async def test_all_of_the_limit_at_once_and_not_one_more(broker: Broker, worker: ScriptedWorker) -> None:
    async with _edges(broker, _limited(requests_per_minute=12)) as edges:
        answers = await asyncio.gather(*(_ask(edges[n % 2]) for n in range(36)))
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (12, 24)
        refused = next(answer for answer in answers if answer.status_code == 429)
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
        assert "This API key has a limit of 12 requests per minute" in error["message"]
        assert 55 <= int(refused.headers["retry-after"]) <= 62
        assert refused.headers["x-ratelimit-limit-requests"] == "12"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        # Another key has its own.
        other = await _ask(edges[0], key=OTHER_KEY)
        assert other.status_code == 200
        assert other.headers["x-ratelimit-remaining-requests"] == "11"
        assert "x-ratelimit-limit-tokens" not in other.headers
        metrics = (await edges[0].client.get(edges[0].address.metrics_url)).text
        assert "inferflux_rate_limited_total" in metrics


async def test_without_limits_nothing_is_counted_or_said(broker: Broker, edge: Edge) -> None:
    answer = await _ask(edge)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    info = await broker.topology.api("STREAM.INFO.INFERFLUX_LIMITS")
    assert info["state"]["last_seq"] == 0


async def test_tokens_are_reserved_and_then_settled_by_what_they_came_to(
    broker: Broker, worker: ScriptedWorker
) -> None:
    async with _edges(broker, _limited(tokens_per_minute=1000)) as (one, two):
        first = await _ask(one, max_tokens=900)
        assert first.status_code == 200
        used = first.json()["usage"]["total_tokens"]
        assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100
        # The answer was short, so there is room again, at the other edge as well.
        second = await _ask(two, max_tokens=900)
        assert second.status_code == 200
        assert int(second.headers["x-ratelimit-remaining-tokens"]) < 100 - used
        too_large = await _ask(two, max_tokens=2000)
        assert too_large.status_code == 429
        assert "'max_tokens'" in too_large.json()["error"]["message"]
        assert too_large.headers["x-should-retry"] == "false"
        assert "retry-after" not in too_large.headers


async def test_a_day_has_its_own_budget(broker: Broker, worker: ScriptedWorker) -> None:
    async with _edges(broker, _limited(tokens_per_day=200)) as (one, two):
        assert (await _ask(one, max_tokens=150)).status_code == 200
        refused = (await asyncio.gather(_ask(two, max_tokens=190), _ask(two, max_tokens=190)))[0]
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (429, "budget_exceeded")
        assert "200 tokens per day (UTC)" in error["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 86400


def _config(limits: LimitsPolicy) -> EdgeConfig:
    return replace(CONFIG, limits=limits)


async def test_tenants_and_models_have_limits_over_all_their_keys(broker: Broker, worker: ScriptedWorker) -> None:
    keys = (
        KeySpec("a", name="a", tenant="blue"),
        KeySpec("b", name="b", tenant="blue"),
        KeySpec("c", name="c", tenant="red"),
        KeySpec("d", name="d", tenant="red", limits=LimitSet(requests_per_minute=1)),
    )
    limits = LimitsPolicy(
        tenants={"blue": LimitSet(requests_per_minute=3)}, models={"echo": LimitSet(requests_per_minute=6)}
    )
    async with _edges(broker, limits, keys=keys) as (one, two):
        statuses = [(await _ask(edge, key=key)).status_code for edge, key in [(one, "a"), (two, "b"), (one, "a")]]
        assert statuses == [200, 200, 200]
        refused = await _ask(two, key="b")
        assert refused.status_code == 429
        assert "The tenant 'blue' has a limit of 3 requests per minute" in refused.json()["error"]["message"]
        assert refused.headers["x-ratelimit-limit-requests"] == "3"
        assert (await _ask(two, key="d")).status_code == 200
        assert "This API key" in (await _ask(one, key="d")).json()["error"]["message"]
        # What a key, or a tenant, was refused has not been taken from the model.
        assert [(await _ask(one, key="c")).status_code for _ in range(2)] == [200, 200]
        refused = await _ask(two, key="c")
        assert refused.status_code == 429
        assert "The model 'echo'" in refused.json()["error"]["message"]
        assert "x-ratelimit-limit-requests" not in refused.headers
