"""What browsers are told: headers on every answer, and which pages may call."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest

from producer.edge.routes.table import ROUTES
from producer.edge.security_headers import SecurityHeaders
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, Edge, chat, running_edge
from tests.producer.scripted_worker import ScriptedWorker
from tests.producer.test_limits import socket_to

pytestmark = pytest.mark.nats

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
PAGE = "https://app.example"
ASKED = "authorization,content-type,idempotency-key"


def assert_secured(answer: httpx2.Response) -> None:
    assert HEADERS.items() <= dict(answer.headers).items()
    assert all(len(answer.headers.get_list(name)) == 1 for name in HEADERS)
    assert "strict-transport-security" not in answer.headers  # over plain HTTP a browser ignores it


async def test_every_answer_of_every_route_has_them(edge: Edge) -> None:
    for route in ROUTES:
        if route.path == "/docs":
            continue  # a page, with a policy of its own: test_docs_page
        path = route.path.replace("{id:path}", "echo").replace("{id}", "nope")
        for headers in ({}, {"authorization": "Bearer nobodys"}):
            assert_secured(await edge.client.request(route.method, path, headers=headers, json={}))
        assert_secured(await edge.client.request("PATCH", path))
        assert_secured(await edge.client.options(path))
    assert_secured(await edge.client.get("/nope"))
    assert_secured(await edge.post(chat(stream=True)))
    async with httpx2.AsyncClient(trust_env=False) as scraper:
        assert_secured(await scraper.get(edge.address.metrics_url))


async def test_so_has_one_that_no_route_gave(edge: Edge) -> None:
    async with socket_to(edge) as socket:
        await socket.send("nonsense\r\n\r\n")
        assert HEADERS.items() <= (await socket.answer()).headers.items()


async def test_what_a_page_says_of_itself_stays() -> None:
    own = (b"Content-Security-Policy", b"default-src 'self'")
    sent = []

    async def page(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [own]})  # type: ignore[operator]

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await SecurityHeaders(page)({"type": "http", "scheme": "https"}, None, send)  # type: ignore[arg-type]
    headers = sent[0]["headers"]
    assert isinstance(headers, list)
    assert [value for name, value in headers if name.lower() == b"content-security-policy"] == [own[1]]
    assert (b"strict-transport-security", b"max-age=31536000") in headers


@contextlib.asynccontextmanager
async def edge_for(broker: Broker, *origins: str) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG, cors_origins=origins)) as edge:
        del edge.client.headers["authorization"]
        yield edge


async def preflight(edge: Edge, origin: str) -> httpx2.Response:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": ASKED,
    }
    return await edge.client.options("/v1/chat/completions", headers=headers)


@pytest.mark.parametrize("configured", [PAGE, "*"])
async def test_a_configured_page_calls_with_its_key(broker: Broker, worker: ScriptedWorker, configured: str) -> None:
    async with edge_for(broker, configured) as edge:
        asked = await preflight(edge, PAGE)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, PAGE)
        assert asked.headers["access-control-allow-headers"] == ASKED
        for key, status in ((KEY, 200), ("nobodys", 401)):
            answer = await edge.client.post(
                "/v1/chat/completions", json=chat(), headers={"origin": PAGE, "authorization": f"Bearer {key}"}
            )
            # A refusal as well: else the page would only learn that something failed.
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "origin" in answer.headers["vary"].lower()
            assert_secured(answer)


@pytest.mark.parametrize("configured", [PAGE, "*"])
async def test_no_page_ever_gets_a_browsers_own_credentials(broker: Broker, configured: str) -> None:
    """A key stands in a header that the page itself sets. Nothing that a browser adds by itself opens anything."""
    async with edge_for(broker, configured) as edge:
        for answer in (await preflight(edge, PAGE), await edge.client.get("/version", headers={"origin": PAGE})):
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert "access-control-allow-credentials" not in answer.headers
        cookie = await edge.client.get("/v1/models", headers={"origin": PAGE, "cookie": f"key={KEY}"})
        assert cookie.status_code == 401


async def test_pages_like_a_configured_one_do_not_call(broker: Broker) -> None:
    async with edge_for(broker, PAGE) as edge:
        for origin in ("http://app.example", f"{PAGE}:8443", f"{PAGE}.evil.example", "https://evil.example", "null"):
            assert "access-control-allow-origin" not in (await preflight(edge, origin)).headers
