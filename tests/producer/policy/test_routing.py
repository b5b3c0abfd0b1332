"""Sections of the policy that say whose tokens are taken, and what names of models stand for."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from producer.config import Scope
from schemas.control import ModelCard
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, KEYS, Edge, put_model, running_edge, running_worker, until_served
from tests.support.waiting import until

pytestmark = pytest.mark.nats

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
OTHER = "org/other"
ISSUER = "https://id.example.com"


async def admin(edge: Edge, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    more = {} if body is None else {"json": body}
    answer = await edge.client.request(method, f"/v1/admin/{path}", headers=ADMIN, **more)
    return answer.status_code, answer.json()


async def refused(edge: Edge, path: str, body: Any) -> tuple[int, str, str | None]:
    status, answer = await admin(edge, "PUT", path, body)
    return status, answer["error"]["code"], answer["error"]["param"]


async def model_of(edge: Edge, model: str | None) -> tuple[int, str]:
    """Which model answers to a name, or what is said to it."""
    body = {"prompt": "x", **({"model": model} if model is not None else {})}
    answer = await edge.post(body, "/v1/completions")
    told = answer.json()
    return answer.status_code, told["model"] if answer.status_code == 200 else told["error"]["code"]


@contextlib.asynccontextmanager
async def two_models(broker: Broker) -> AsyncIterator[Edge]:
    """`echo`, the default with an alias, and `org/other`; a worker for each."""
    other = ModelCard(id=OTHER, source="echo", backend="echo", created=1)
    await broker.apply(broker.model, other)
    await put_model(broker, aliases=("gpt-4o-mini", "small"))
    await put_model(broker, id=OTHER, default=False)
    async with (
        running_worker(broker.worker),
        running_worker(broker.worker, model=OTHER, worker_id="w2"),
        running_edge(broker) as edge,
    ):
        await until_served(edge)
        yield edge


async def test_names_of_models_are_routed_over_all_edges(broker: Broker) -> None:
    async with two_models(broker) as edge, running_edge(broker, replace(CONFIG, edge_id="e2")) as second:
        assert (await admin(edge, "GET", "routing"))[1] == {
            "object": "routing",
            "source": "file",
            "default_model": None,
            "aliases": {},
        }
        await until(lambda: _answers(second, OTHER, (200, OTHER)))
        assert await model_of(edge, None) == (200, "echo")
        change = {"default_model": OTHER, "aliases": {"gpt-4o-mini": OTHER, "big": OTHER}}
        status, routing = await admin(edge, "PUT", "routing", change)
        assert (status, routing["source"], routing["aliases"]) == (200, "store", change["aliases"])
        for name, model in (
            (None, OTHER),
            ("default", OTHER),
            ("gpt-4o-mini", OTHER),
            ("big", OTHER),
            ("small", "echo"),
        ):
            assert await model_of(edge, name) == (200, model), name
        await until(lambda: _answers(second, "big", (200, OTHER)))
        listed = (await edge.client.get("/v1/models")).json()["data"]
        assert [(each["id"], each["default"], each["aliases"]) for each in listed] == [
            (OTHER, True, ["gpt-4o-mini", "big"]),
            ("echo", False, ["small"]),
        ]
        assert (await edge.client.get("/v1/models/big")).json()["id"] == OTHER

        _, routing = await admin(edge, "PUT", "routing", {"default_model": None, "aliases": {"big": None}})
        assert (routing["default_model"], routing["aliases"]) == (None, {"gpt-4o-mini": OTHER})
        assert await model_of(edge, None) == (200, "echo")
        assert await model_of(edge, "big") == (404, "model_not_found")
        assert (await admin(edge, "GET", "policy"))[1]["sections"]["routing"]["source"] == "store"
        assert (await admin(edge, "POST", "policy/reset", {"section": "routing"}))[0] == 200
        assert await model_of(edge, "gpt-4o-mini") == (200, "echo")
        actions = [record["action"] for record in (await admin(edge, "GET", "audit?action=routing.set"))[1]["data"]]
        assert actions == ["routing.set"] * 2


async def test_a_name_stands_for_no_model_that_there_is_not(broker: Broker) -> None:
    async with two_models(broker) as edge:
        for body, told in (
            ({"default_model": "absent"}, (404, "model_not_found", "default_model")),
            ({"default_model": "small"}, (404, "model_not_found", "default_model")),
            ({"aliases": {"x": "absent"}}, (404, "model_not_found", "aliases.x")),
            ({"aliases": {"echo": OTHER}}, (400, "invalid_parameter", "aliases.echo")),
            ({"aliases": {"default": OTHER}}, (400, "invalid_parameter", "aliases.default")),
            ({"aliases": {"": OTHER}}, (400, "invalid_parameter", "aliases.")),
            ({"aliases": {str(n): OTHER for n in range(1025)}}, (400, "invalid_parameter", "aliases")),
            ({"aliases": ["x"]}, (400, "invalid_parameter", "aliases")),
            ({"model": "echo"}, (400, "unknown_parameter", "model")),
        ):
            assert await refused(edge, "routing", body) == told, body
        assert (await admin(edge, "PUT", "routing", {"aliases": {"big": OTHER}}))[0] == 200
        await put_gone(broker)
        await until(lambda: _answers(edge, OTHER, (404, "model_not_found")))
        answer = await edge.post({"model": "big", "prompt": "x"}, "/v1/completions")
        assert answer.json()["error"]["message"] == f"The model '{OTHER}', for which 'big' stands, does not exist."


async def put_gone(broker: Broker) -> None:
    from broker.registry import Registry

    registry = Registry(broker.edge, watch_workers=False)
    await registry.start()
    await registry.delete_model(OTHER)
    await registry.close()


async def test_whose_tokens_are_taken_is_changed_and_reset(broker: Broker) -> None:
    async with running_edge(broker) as edge, running_edge(broker, replace(CONFIG, edge_id="e2")) as second:
        shown = (await admin(edge, "GET", "oidc"))[1]
        assert (shown["enabled"], shown["source"], shown["policy"]) == (False, "file", None)
        assert await refused(edge, "oidc", {"allow_admin": True}) == (400, "invalid_parameter", "issuer")
        given = {"issuer": ISSUER, "audience": "api", "algorithms": ["RS256"], "scope_map": {"users": ["generate"]}}
        status, shown = await admin(edge, "PUT", "oidc", given)
        assert (status, shown["enabled"], shown["source"]) == (200, True, "store")
        assert {name: shown["policy"][name] for name in given} == given
        status, shown = await admin(edge, "PUT", "oidc", {"allow_admin": True, "ceiling": "low"})
        assert (status, shown["policy"]["allow_admin"], shown["policy"]["issuer"]) == (200, True, ISSUER)

        async def second_trusts() -> bool:
            return bool((await admin(second, "GET", "oidc"))[1]["enabled"])

        await until(second_trusts)
        found = await second.client.get("/.well-known/oauth-protected-resource")
        assert found.json()["authorization_servers"] == [ISSUER]
        for body, told in (
            ({}, (400, "invalid_parameter", None)),
            ({"issuer": "http://id.example.com"}, (400, "invalid_parameter", "issuer")),
            ({"issuer": 7}, (400, "invalid_parameter", "issuer")),
            ({"audience": ""}, (400, "invalid_parameter", "audience")),
            ({"algorithms": ["none"]}, (400, "invalid_parameter", "algorithms.0")),
            ({"algorithms": []}, (400, "invalid_parameter", "algorithms")),
            ({"scope_map": {"x": ["root"]}}, (400, "invalid_parameter", "scope_map.x.0")),
            ({"leeway_s": 1e9}, (400, "invalid_parameter", "leeway_s")),
            ({"ceiling": "huge"}, (400, "invalid_parameter", "ceiling")),
            ({"secret": "x"}, (400, "unknown_parameter", "secret")),
        ):
            assert await refused(edge, "oidc", body) == told, body
        assert (await admin(edge, "POST", "policy/reset", {"section": "oidc"}))[0] == 200
        assert not (await admin(edge, "GET", "oidc"))[1]["enabled"]
        records = (await admin(edge, "GET", "audit?action=oidc.set"))[1]["data"]
        assert [record["outcome"] for record in records] == ["allowed"] * 2


async def test_nobody_is_locked_out_by_an_issuer_that_nobody_has_tried(broker: Broker) -> None:
    """The well-known key ends once tokens are taken, and whether one will be is not known."""
    default = KEYS[3]
    fresh = replace(CONFIG, keys=(replace(default, is_default=True),))
    async with running_edge(broker, fresh) as edge:
        given = {"issuer": ISSUER, "audience": "api", "allow_admin": True}
        status, answer = await admin(edge, "PUT", "oidc", given)
        assert (status, "nobody could administer" in answer["error"]["message"]) == (400, True)
        assert Scope.ADMIN in default.scopes
        body = {"name": "chief", "scopes": ["admin"]}
        issued = await edge.client.post("/v1/admin/api_keys", headers=ADMIN, json=body)
        key = {"authorization": f"Bearer {issued.json()['key']}"}
        answer = (await edge.client.put("/v1/admin/oidc", headers=key, json=given)).json()
        assert answer["enabled"]
        revoked = await edge.client.delete("/v1/admin/api_keys/chief", headers=key)
        # Tokens of this issuer may administer as before, as far as anybody knows.
        assert revoked.status_code == 200


async def _answers(edge: Edge, model: str, expected: tuple[int, str]) -> bool:
    return await model_of(edge, model) == expected
