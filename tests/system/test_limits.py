"""Limits over real edge processes: counted together, never beyond, and given back when an edge dies."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx2
import openai
import pytest

from tests.producer.limits.worst_window import worst_window
from tests.support.counts import full_or
from tests.support.waiting import until as until_true
from tests.system.beside import Beside
from tests.system.conftest import Report
from tests.system.short_minutes import VARIABLE
from tests.system.stack import ADMIN_KEY, Stack, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(full_or(400, reduced=120))]

WINDOW_S = full_or(60, reduced=10)
NUM_WINDOWS = full_or(2, reduced=2)
REQUESTS = full_or(120, reduced=30)
TOKENS = full_or(12_000, reduced=3_000)


def _key(name: str, **limits: int) -> dict[str, Any]:
    return {"key": f"key-of-{name}", "limits": limits}


KEYS = {
    "many": _key("many", requests_per_minute=REQUESTS),
    "tokens": _key("tokens", tokens_per_minute=TOKENS),
    "holder": _key("holder", concurrent_requests=3),
    "sdk": _key("sdk", requests_per_minute=3, tokens_per_minute=5_000),
    "daily": _key("daily", tokens_per_day=100),
    "used": _key("used", tokens_per_day=1_000),
}


@dataclass
class Edges:
    stack: Stack
    one: Beside
    two: Beside

    def start(self, name: str) -> Beside:
        return _start_edge(self.stack, name)


def _start_edge(stack: Stack, name: str) -> Beside:
    env = {VARIABLE: str(WINDOW_S)}
    return Beside(stack, "edge", name, "--port", "0", *stack.options, env=env, module="tests.system.short_minutes")


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edges]:
    folder = tmp_path_factory.mktemp("limits")
    config = folder / "server.yaml"
    models = {
        "echo": {"backend": "echo", "source": "echo:repeat", "default": True, "sequences": 64, "queue_max": 1000},
        "slow": {"backend": "echo", "source": "echo:random?rate=20", "sequences": 16},
    }
    config.write_text(json.dumps({"models": models, "auth": {"api_keys": KEYS}}))
    with ExitStack() as cleanup:
        stack = cleanup.enter_context(running(folder / "data", "--config", str(config)))
        started = []
        for name in ("edge-1", "edge-2"):
            started.append(_start_edge(stack, name))
            cleanup.callback(started[-1].stop)
        for edge in started:
            until(lambda edge=edge: _is_ready(edge), "the edge knows its worker")  # type: ignore[misc]
        yield Edges(stack, *started)


def _is_ready(edge: Beside) -> bool:
    try:
        fetch(f"{edge.url}/readyz", timeout_s=2)
    except OSError:
        return False
    return True


class Answer(NamedTuple):
    """Times are monotonic."""

    sent_at: float
    answered_at: float
    status: int
    tokens: int
    headers: httpx2.Headers


class Caller:
    """One key, at whichever edge."""

    def __init__(self, edges: Edges, name: str, http: httpx2.AsyncClient) -> None:
        self._urls = [edges.one.url, edges.two.url]
        self._headers = {"authorization": f"Bearer {KEYS[name]['key']}"}
        self._http = http
        self.answers: list[Answer] = []

    async def ask(self, number: int, **body: Any) -> Answer:
        sent_at = time.monotonic()
        asked = {"model": "echo", "prompt": "abcdefgh", "max_tokens": 1, **body}
        url = f"{self._urls[number % 2]}/v1/completions"
        answer = await self._http.post(url, json=asked, headers=self._headers)
        tokens = answer.json()["usage"]["total_tokens"] if answer.status_code == 200 else 0
        self.answers.append(Answer(sent_at, time.monotonic(), answer.status_code, tokens, answer.headers))
        return self.answers[-1]

    @property
    def num_admitted(self) -> int:
        return sum(answer.status == 200 for answer in self.answers)

    def worst(self, amount: Callable[[Answer], int]) -> int:
        """In any rolling window, by when they were sent and by when they were answered."""
        admitted = [answer for answer in self.answers if answer.status == 200]
        return max(
            worst_window([(answer.sent_at, amount(answer)) for answer in admitted], WINDOW_S),
            worst_window([(answer.answered_at, amount(answer)) for answer in admitted], WINDOW_S),
        )


async def _at_rate(per_s: float, seconds: float, ask: Callable[[int], Awaitable[object]], seed: int) -> None:
    """An open loop with random gaps: nobody waits for an answer before the next asks."""
    chances, begun_at, at, number = random.Random(seed), time.monotonic(), 0.0, 0
    async with asyncio.TaskGroup() as group:
        while at < seconds:
            await asyncio.sleep(max(begun_at + at - time.monotonic(), 0.0))
            group.create_task(ask(number))
            at += chances.expovariate(per_s)
            number += 1


async def test_three_times_the_limit_at_two_edges(edges: Edges, report: Report) -> None:
    """A burst of all that is allowed, then three times as much as is allowed, for requests and for tokens."""
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx2.AsyncClient(limits=limits, timeout=60, trust_env=False) as http:
        many, tokens = Caller(edges, "many", http), Caller(edges, "tokens", http)
        burst = await asyncio.gather(*(many.ask(number) for number in range(REQUESTS)))
        assert [answer.status for answer in burst] == [200] * REQUESTS

        def ask_for_tokens(number: int) -> Awaitable[Answer]:
            # Reserved is far more than it comes to: an answer is as long as the prompt.
            return tokens.ask(number, prompt="x" * 60, max_tokens=160)

        seconds = NUM_WINDOWS * WINDOW_S
        await asyncio.gather(
            _at_rate(3 * REQUESTS / WINDOW_S, seconds, many.ask, seed=1),
            _at_rate(3 * TOKENS / 120 / WINDOW_S, seconds, ask_for_tokens, seed=2),
        )
    of_requests = many.worst(lambda answer: 1) / REQUESTS
    of_tokens = tokens.worst(lambda answer: answer.tokens) / TOKENS
    report("requests: worst rolling window / limit", round(of_requests, 4))
    report("tokens: worst rolling window / limit", round(of_tokens, 4))
    report("requests asked, admitted", (len(many.answers), many.num_admitted))
    report("tokens asked, admitted", (len(tokens.answers), tokens.num_admitted))
    assert of_requests <= 1.02
    assert of_tokens <= 1.05
    # It is let through what may be: a window's worth at first, and one for each window that has passed since.
    assert many.num_admitted >= REQUESTS * NUM_WINDOWS
    assert tokens.worst(lambda answer: answer.tokens) >= 0.8 * TOKENS
    assert {answer.status for answer in many.answers + tokens.answers} == {200, 429}


async def test_what_a_killed_edge_held_comes_back(edges: Edges, report: Report) -> None:
    victim = edges.start("edge-3")
    until(lambda: _is_ready(victim), "the edge knows its worker")
    headers = {"authorization": f"Bearer {KEYS['holder']['key']}"}
    body = {"model": "slow", "prompt": "go", "max_tokens": 600, "ignore_eos": True, "stream": True}
    try:
        async with httpx2.AsyncClient(timeout=60, trust_env=False, headers=headers) as http:
            async with asyncio.TaskGroup() as group:
                begun: asyncio.Queue[int] = asyncio.Queue()
                for _ in range(3):
                    group.create_task(_read_until_broken(http, f"{victim.url}/v1/completions", body, begun))
                assert [await begun.get() for _ in range(3)] == [200] * 3

                async def ask() -> int:
                    short = {**body, "max_tokens": 1, "stream": False}
                    return (await http.post(f"{edges.one.url}/v1/completions", json=short)).status_code

                async def is_free() -> bool:
                    return await ask() == 200

                assert await ask() == 429
                victim.kill()
                killed_at = time.monotonic()
                await until_true(is_free, every_s=0.05)
                report("holds of a killed edge are back after, s", round(time.monotonic() - killed_at, 2))
            # All of them: three at once.
            assert await asyncio.gather(*(ask() for _ in range(3))) == [200] * 3
    finally:
        victim.stop()


async def _read_until_broken(
    http: httpx2.AsyncClient, url: str, body: dict[str, Any], begun: asyncio.Queue[int]
) -> None:
    try:
        async with http.stream("POST", url, json=body) as answer:
            begun.put_nowait(answer.status_code)
            async for _ in answer.aiter_bytes():
                pass
    except httpx2.TransportError:
        return


def test_the_official_client_reads_its_limits(edges: Edges) -> None:
    with openai.OpenAI(base_url=f"{edges.one.url}/v1", api_key=KEYS["sdk"]["key"], max_retries=0, timeout=30) as client:

        def ask(**options: Any) -> Any:
            question = [{"role": "user", "content": "hello"}]
            return client.chat.completions.with_raw_response.create(
                model="echo", messages=question, max_tokens=50, **options
            )

        first = ask().headers
        assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"]) == ("3", "2")
        assert first["x-ratelimit-limit-tokens"] == "5000"
        assert 4_800 < int(first["x-ratelimit-remaining-tokens"]) < 5_000
        assert first["x-ratelimit-reset-requests"].endswith("s")
        streamed = ask(stream=True)
        assert streamed.headers["x-ratelimit-remaining-requests"] == "1"
        list(streamed.parse())
        ask()
        with pytest.raises(openai.RateLimitError) as refused:
            ask()
        answer = refused.value.response.headers
        assert refused.value.code == "rate_limited"
        assert "This API key has a limit of 3 requests per minute" in str(refused.value)
        assert 1 <= int(answer["retry-after"]) <= WINDOW_S + 2
        assert answer["x-ratelimit-remaining-requests"] == "0"


def test_a_day_has_its_budget(edges: Edges) -> None:
    with openai.OpenAI(base_url=f"{edges.two.url}/v1", api_key=KEYS["daily"]["key"], max_retries=0) as client:
        # Where the edge has only seen short prompts so far, half as much again is reserved for these.
        client.completions.create(model="echo", prompt="0123456789" * 4, max_tokens=20)
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(model="echo", prompt="0123456789" * 4, max_tokens=20)
    assert refused.value.code == "budget_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 86_400


def _run(edges: Edges, *arguments: str) -> Any:
    port = edges.one.url.rpartition(":")[2]
    command = [sys.executable, "-m", "ops.cli.inferctl", "admin", "rate-limit", "--json", "--port", port]
    command += ["--host", "127.0.0.1", "--api-key", ADMIN_KEY, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_administrators_see_and_change_limits_of_the_running_fleet(edges: Edges) -> None:
    assert _run(edges, "--get")["requests_per_minute"] == 0
    changed = _run(edges, "--tenant", "nobody", "--set", "7", "--concurrent", "2")
    assert changed["source"] == "store"
    assert changed["tenants"]["nobody"]["requests_per_minute"] == 7
    assert changed["tenants"]["nobody"]["concurrent_requests"] == 2
    with openai.OpenAI(base_url=f"{edges.two.url}/v1", api_key=KEYS["used"]["key"], max_retries=0) as client:
        client.completions.create(model="echo", prompt="abc", max_tokens=3)
    uses = {(use["name"], use["limit_name"]): use for use in _run(edges, "--use")["data"]}
    assert uses["nobody", "requests_per_minute"]["used"] == 0
    assert uses["used", "tokens_per_day"]["limit"] == 1_000
    assert uses["used", "tokens_per_day"]["used"] > 0
    assert _run(edges, "--tenant", "nobody", "--clear")["tenants"] == {}
