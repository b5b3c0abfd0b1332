"""Every route against every set of scopes, owners and strangers, grants and ceilings: made from the route table."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import httpx2
import pytest

from producer.config import KeySpec, Scope
from producer.edge.operation import Route
from producer.edge.routes.table import ROUTES
from schemas.control import ModelCard
from schemas.requests import PriorityClass
from tests.conftest import Broker
from tests.producer.access_rules import rule_of, ruled
from tests.producer.conftest import CONFIG, Edge, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.support.waiting import until

pytestmark = pytest.mark.nats

SCOPE_SETS = [frozenset(each) for each in chain.from_iterable(combinations(sorted(Scope), n) for n in range(4))]
OTHER_MODEL = "org/other"
NOBODYS_ID = "0123456789abcdef0123456789abcdef"
# Classes, highest first, and what is asked for to get each.
CLASSES = ["high", "normal", "low", "batch"]
ASKED = [
    ({"priority": 10}, "high"),
    ({"priority": 5}, "high"),
    ({"service_tier": "priority"}, "high"),
    ({"priority": 4}, "normal"),
    ({}, "normal"),
    ({"service_tier": "default"}, "normal"),
    ({"priority": -1}, "low"),
    ({"service_tier": "flex"}, "low"),
]
GRANTS = {"all": ("*",), "echo": ("echo",), "org": ("org/*",), "alias": ("gpt-4o-mini",), "none": ()}


def scopes_key(scopes: frozenset[Scope]) -> str:
    return f"with-{'-'.join(sorted(scopes)) or 'nothing'}"


KEYS = (
    *(KeySpec(scopes_key(each), scopes=tuple(each), name=scopes_key(each)) for each in SCOPE_SETS),
    *(KeySpec(f"grants-{name}", models=models, name=name) for name, models in GRANTS.items()),
    *(KeySpec(f"up-to-{each}", ceiling=PriorityClass(each), name=f"up-to-{each}") for each in CLASSES),
    KeySpec("usual", name="usual"),
    KeySpec("chief", name="chief", scopes=tuple(Scope)),
    KeySpec("owner", name="owner", tenant="theirs"),
    KeySpec("neighbour", name="neighbour", tenant="theirs"),
    KeySpec("stranger", name="stranger", tenant="another"),
)


def as_key(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def path_of(route: Route, name: str = "nope") -> str:
    return re.sub(r"{\w+(:\w+)?}", name, route.path)


def routes_that(**wanted: bool) -> list[Route]:
    return [
        route
        for route in ROUTES
        if all(getattr(rule_of(route.method, route.path), name) is value for name, value in wanted.items())
    ]


async def hold(run: Run) -> None:
    await run.say("one")
    await run.cancelled.wait()
    await run.finish("")


@contextlib.asynccontextmanager
async def matrix_edge(broker: Broker) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG, keys=KEYS)) as edge:
        del edge.client.headers["authorization"]
        await until_served(edge)
        yield edge


@pytest.fixture
async def edge(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Edge]:
    async with matrix_edge(broker) as edge:
        yield edge


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    for route in ROUTES:
        rule_of(route.method, route.path)
    assert ruled() <= {(route.method, route.path) for route in ROUTES}


def test_a_route_nobody_thought_about_is_found() -> None:
    with pytest.raises(LookupError, match="GET /v1/secrets has no rule"):
        rule_of("GET", "/v1/secrets")


def test_rules_cover_what_a_route_takes() -> None:
    """A body with a model, a path with a request: then the matrix has to try grants, ceilings, strangers on it."""
    for route in ROUTES:
        rule, body = rule_of(route.method, route.path), route.handler.operation.body
        taken = set(body.model_fields) if body is not None else set()
        if "admin" not in rule.opens:
            assert ("priority" in taken or "service_tier" in taken) <= rule.has_priority, route.path
            assert ("model" in taken) <= rule.names_model, route.path
            assert ("/requests/{" in route.path) <= rule.is_owners, route.path
            assert ("/files/{" in route.path) <= (rule.owned == "file"), route.path
            assert ("/batches/{" in route.path) <= (rule.owned == "batch"), route.path


def attempts() -> Iterator[tuple[Route, str]]:
    """Each route under all its names, those that change the least first."""
    for route in sorted(ROUTES, key=lambda route: route.method != "GET"):
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            for path in {path_of(route), path_of(route).removeprefix("/v1"), f"{path_of(route)}/"}:
                yield route._replace(path=path, method=method), route.path


async def test_a_route_opens_to_its_scopes_and_to_nothing_else(edge: Edge) -> None:
    """First all refusals: what is let in may change things."""
    keys: dict[str | None, frozenset[Scope]] = {scopes_key(each): each for each in SCOPE_SETS}
    opened = []
    for route, listed in attempts():
        opens = rule_of("GET" if route.method == "HEAD" else route.method, listed).opens
        for key, scopes in [*keys.items(), (None, None), ("unknown", None)]:
            if not opens or (scopes is not None and opens & scopes):
                opened.append((route, key))
                continue
            answer = await edge.client.request(route.method, route.path, headers=as_key(key), json={})
            expected = (401, "invalid_api_key") if scopes is None else (403, "insufficient_scope")
            assert answer.status_code == expected[0], (route.method, route.path, key)
            assert ("www-authenticate" in answer.headers) is (scopes is None)
            if route.method != "HEAD":
                assert answer.json()["error"]["code"] == expected[1], (route.method, route.path, key)
    for route, key in opened:
        answer = await edge.client.request(route.method, route.path, headers=as_key(key), json={})
        assert answer.status_code not in (401, 403, 405, 500), (route.method, route.path, key)


async def test_a_strangers_request_is_nobodys(edge: Edge, worker: ScriptedWorker) -> None:
    """Whoever asks for it gets the answer that an id gets which there never was; its owner, the request."""
    worker.script = hold
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = as_key("owner") | {"x-inferflux-queue-updates": "on"}
    async with edge.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as held:
        request_id = held.headers["x-request-id"]
        await worker.started.wait()
        routes = routes_that(is_owners=True)
        assert routes
        for route in routes:
            for key in ("neighbour", "stranger", "chief", "up-to-high"):
                told = await edge.client.request(route.method, path_of(route, request_id), headers=as_key(key))
                unknown = await edge.client.request(route.method, path_of(route, NOBODYS_ID), headers=as_key(key))
                assert (told.status_code, told.json()) == (unknown.status_code, unknown.json()), (route.path, key)
                assert told.json()["error"]["code"] == "request_not_found"
                assert set(told.headers) == set(unknown.headers)
        assert not worker.runs[0].cancelled.is_set()
        # What ends it last.
        await asyncio.gather(*(use(edge, route, request_id) for route in routes if route.method == "GET"))
        for route in routes:
            if route.method != "GET":
                await use(edge, route, request_id)
        await worker.runs[0].cancelled.wait()


async def use(edge: Edge, route: Route, request_id: str) -> None:
    """As the owner. Of a stream the first event is enough."""
    path = path_of(route, request_id)
    async with edge.client.stream(route.method, path, headers=as_key("owner")) as answer:
        assert answer.status_code == 200, route.path
        async for _ in answer.aiter_bytes():
            return


async def test_a_request_that_has_ended_stays_its_owners(edge: Edge) -> None:
    body = {"messages": [{"role": "user", "content": "x y z"}]}
    made = await edge.client.post(
        "/v1/chat/completions", json=body, headers=as_key("owner") | {"idempotency-key": "one"}
    )
    request_id = made.headers["x-request-id"]
    for route in routes_that(is_owners=True):
        for key in ("neighbour", "stranger", "chief"):
            told = await edge.client.request(route.method, path_of(route, request_id), headers=as_key(key))
            assert (told.status_code, told.json()["error"]["code"]) == (404, "request_not_found"), (route.path, key)
        await use(edge, route, request_id)


async def test_files_and_batches_are_their_owners(edge: Edge) -> None:
    """And so is what has come of a batch, which is no file of its own."""
    ids = await leave_a_batch(edge, "owner")
    unknown = {"file": "file-nope", "output": f"file-batch_{NOBODYS_ID}-output", "batch": "batch_nope"}
    routes = [route for route in ROUTES if rule_of(route.method, route.path).owned]
    for route in routes:
        owned = rule_of(route.method, route.path).owned
        for kind in ("file", "output") if owned == "file" else ("batch",):
            for key in ("neighbour", "stranger", "chief", "up-to-high"):
                told = await edge.client.request(route.method, path_of(route, ids[kind]), headers=as_key(key))
                none = await edge.client.request(route.method, path_of(route, unknown[kind]), headers=as_key(key))
                assert (told.status_code, told.json()) == (none.status_code, none.json()), (route.path, key)
                assert told.json()["error"]["code"] == f"{owned}_not_found"
    for path in ("/v1/files", "/v1/batches"):
        for key in ("neighbour", "stranger", "chief"):
            assert (await edge.client.get(path, headers=as_key(key))).json()["data"] == [], (path, key)
        assert len((await edge.client.get(path, headers=as_key("owner"))).json()["data"]) == 1
    for route in sorted(routes, key=lambda route: route.method != "GET"):
        kind = rule_of(route.method, route.path).owned
        used = await edge.client.request(route.method, path_of(route, ids[kind]), headers=as_key("owner"))
        # There is nothing left of it that could be cancelled.
        assert used.status_code == (400 if route.path.endswith("/cancel") else 200), (route.path, used.text)
    listed = (await edge.client.get("/v1/admin/batches?tenant=theirs", headers=as_key("chief"))).json()["data"]
    assert [(each["id"], each["tenant"]) for each in listed] == [(ids["batch"], "theirs")]


async def leave_a_batch(edge: Edge, key: str) -> dict[str, str]:
    """Of one line, answered. Ids of its file, of itself and of its output."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    form = {"file": ("lines.jsonl", json.dumps(line).encode())}
    headers = as_key(key)
    file = (await edge.client.post("/v1/files", data={"purpose": "batch"}, files=form, headers=headers)).json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = (await edge.client.post("/v1/batches", json=asked, headers=headers)).json()

    async def has_ended() -> bool:
        shown = (await edge.client.get(f"/v1/batches/{batch['id']}", headers=headers)).json()
        return bool(shown["status"] == "completed")

    await until(has_ended)
    return {"file": file["id"], "batch": batch["id"], "output": f"file-{batch['id']}-output"}


@pytest.fixture
async def two_models(broker: Broker) -> AsyncIterator[Edge]:
    """`echo` is served, `org/other` is known."""
    other = ModelCard(id=OTHER_MODEL, source="echo", backend="echo", created=1)
    await broker.apply(broker.model, other)
    await put_model(broker, aliases=("gpt-4o-mini",))
    await put_model(broker, id=OTHER_MODEL, default=False, no_worker="refuse")
    async with running_worker(broker.worker), matrix_edge(broker) as edge:
        yield edge


async def test_a_key_uses_the_models_it_was_granted(two_models: Edge) -> None:
    edge = two_models
    models = {"echo": "echo", "gpt-4o-mini": "echo", "default": "echo", None: "echo", OTHER_MODEL: OTHER_MODEL}
    allowed = {"all": {"echo", OTHER_MODEL}, "echo": {"echo"}, "org": {OTHER_MODEL}, "alias": set(), "none": set()}
    routes = routes_that(names_model=True)
    assert routes
    for route in routes:
        body = rule_of(route.method, route.path).body
        for name, may_use in allowed.items():
            for asked, model in models.items():
                if body is None and asked is None:
                    continue
                answer = await ask(edge, route, asked, body, f"grants-{name}")
                if model not in may_use:
                    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
                elif body is not None and model == OTHER_MODEL:
                    assert answer.json()["error"]["code"] == "no_worker"
                else:
                    assert answer.status_code == 200, (route.path, name, asked)
    for name, may_use in allowed.items():
        listed = (await edge.client.get("/v1/models", headers=as_key(f"grants-{name}"))).json()["data"]
        assert {each["id"] for each in listed} == may_use, name


async def ask(edge: Edge, route: Route, model: str | None, body: Mapping[str, Any] | None, key: str) -> httpx2.Response:
    if body is None:
        return await edge.client.request(route.method, path_of(route, model or ""), headers=as_key(key))
    named = {"model": model} if model else {}
    return await edge.client.request(route.method, route.path, json={**body, **named}, headers=as_key(key))


async def test_a_key_asks_for_no_more_than_its_ceiling(edge: Edge) -> None:
    ceilings = {f"up-to-{each}": each for each in CLASSES} | {"usual": "normal", "chief": "high"}
    routes = routes_that(has_priority=True)
    assert routes
    for route in routes:
        body = rule_of(route.method, route.path).body
        assert body is not None, route.path
        for key, ceiling in ceilings.items():
            for fields, asked in ASKED:
                answer = await edge.client.request(
                    route.method, route.path, json={**body, **fields}, headers=as_key(key)
                )
                if CLASSES.index(asked) >= CLASSES.index(ceiling):
                    assert answer.status_code == 200, (route.path, key, fields)
                    assert answer.headers["x-inferflux-priority"] == asked
                else:
                    assert answer.status_code == 403, (route.path, key, fields)
                    assert answer.json()["error"]["code"] == "priority_not_allowed"
                    assert answer.json()["error"]["param"] in (*fields, "priority")
