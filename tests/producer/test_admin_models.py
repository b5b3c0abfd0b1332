"""/v1/admin/models, and what callers see of a model that is loading or does not load."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from broker.presence import Presence
from producer.config import KeySpec, Scope
from schemas.control import LoadingModel, ModelCard, WorkerAdvert
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, Edge, put_model, running_edge, running_worker, until_served
from tests.support.waiting import until

pytestmark = pytest.mark.nats

ADMIN = "admin-key-of-models"
PATH = "/v1/admin/models"
REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "", {}, 400, "source"),
    ("POST", "", {"source": ""}, 400, "source"),
    ("POST", "", {"source": "echo", "sequences": 0}, 400, "sequences"),
    ("POST", "", {"source": "echo", "sequences": True}, 400, "sequences"),
    ("POST", "", {"source": "echo", "backend": "cuda"}, 400, "backend"),
    ("POST", "", {"source": "echo", "speed": 1}, 400, "speed"),
    ("POST", "", {"source": "echo", "id": "default"}, 400, "id"),
    ("POST", "", {"source": "echo", "id": "a b"}, 400, "id"),
    ("POST", "", {"source": "echo", "id": "n", "aliases": ["echo"]}, 400, "aliases"),
    ("POST", "", {"source": "echo", "id": "n", "aliases": ["x", "x"]}, 400, "aliases"),
    ("POST", "?wait=perhaps", {"source": "echo"}, 400, "wait"),
    ("PATCH", "/echo", {"source": None}, 400, "source"),
    ("PATCH", "/echo", {"id": "other"}, 400, "id"),
    ("PATCH", "/echo", {"context": 1}, 400, "context"),
    ("PATCH", "/nobody", {"context": 64}, 404, "id"),
    ("DELETE", "/nobody", None, 404, "id"),
    ("PUT", "/default", {"id": "nobody"}, 404, "id"),
]


@asynccontextmanager
async def admin_edge(broker: Broker) -> AsyncIterator[Edge]:
    keys = (*CONFIG.keys, KeySpec(key=ADMIN, name="root", scopes=(Scope.ADMIN,)))
    await put_model(broker)
    async with running_worker(broker.worker), running_edge(broker, replace(CONFIG, keys=keys)) as edge:
        await until_served(edge)
        yield edge


async def ask(edge: Edge, method: str, path: str = PATH, body: Any = None) -> httpx2.Response:
    return await edge.client.request(method, path, json=body, headers={"authorization": f"Bearer {ADMIN}"})


def advert(**fields: Any) -> WorkerAdvert:
    return WorkerAdvert(id="w9", host="h", pid=1, version="0", models=(), free_slots=0, **fields)


async def test_models_are_loaded_changed_and_unloaded(broker: Broker) -> None:
    async with admin_edge(broker) as edge:
        loaded = await ask(edge, "POST", body={"source": "/models/a.gguf", "context": 512, "aliases": ["nick"]})
        assert loaded.status_code == 202
        model = loaded.json()
        assert (model["id"], model["origin"], model["state"], model["default"]) == ("a", "admin", "waiting", False)
        assert (model["source"], model["options"]["context"]) == ("/models/a.gguf", 512)
        changed = (await ask(edge, "PATCH", f"{PATH}/a", {"context": None, "queue_max": 9})).json()
        assert (changed["options"]["context"], changed["options"]["queue_max"], changed["aliases"]) == (
            None,
            9,
            ["nick"],
        )
        listed = (await ask(edge, "GET")).json()
        assert [entry["id"] for entry in listed["data"]] == ["echo", "a"]
        assert [entry["state"] for entry in listed["data"]] == ["served", "waiting"]
        refused = await ask(edge, "DELETE", f"{PATH}/echo")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "id")
        assert (await ask(edge, "GET", f"{PATH}/default")).json()["id"] == "echo"
        assert (await ask(edge, "PUT", f"{PATH}/default", {"id": "a"})).json() == {"object": "model.default", "id": "a"}
        assert [entry["default"] for entry in (await ask(edge, "GET")).json()["data"]] == [True, False]
        assert (await ask(edge, "PUT", f"{PATH}/default", {"id": "echo"})).status_code == 200
        assert (await ask(edge, "DELETE", f"{PATH}/a")).json() == {"id": "a", "object": "model", "deleted": True}
        gone = await edge.post({"model": "a", "prompt": "x"}, "/v1/completions")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")
        trail = (await ask(edge, "GET", "/v1/admin/audit?limit=100")).json()["data"]
        actions = {(event["action"], event["target"]) for event in trail}
        assert {
            ("model.load", "a"),
            ("model.change", "a"),
            ("model.set_default", "a"),
            ("model.unload", "a"),
        } <= actions


async def test_what_cannot_be_is_refused_by_name(broker: Broker) -> None:
    async with admin_edge(broker) as edge:
        for method, path, body, status, param in REFUSED:
            answer = await ask(edge, method, PATH + path, body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), (path, body, answer.text)
        assert [model["id"] for model in (await ask(edge, "GET")).json()["data"]] == ["echo"]


async def test_callers_are_told_how_far_a_model_is(broker: Broker) -> None:
    async with admin_edge(broker) as edge:
        card = (await ask(edge, "POST", body={"source": "/models/a.gguf"})).json()
        body = {"model": card["id"], "prompt": "x"}
        nobody = await edge.post(body, "/v1/completions")
        assert nobody.json()["error"]["code"] == "no_worker"
        state = {"advert": advert(loading=(LoadingModel(model="a", stage="loading", fraction=0.25, elapsed_s=10),))}
        presence = Presence(broker.worker, lambda: state["advert"])
        await presence.start()

        async def code_is(code: str) -> bool:
            answer = await edge.post(body, "/v1/completions")
            return bool(answer.json()["error"]["code"] == code)

        await until(lambda: code_is("model_loading"))
        loading = await edge.post(body, "/v1/completions")
        assert (loading.status_code, loading.headers["retry-after"]) == (503, "30")
        assert "loading, 25%, for 10 s" in loading.json()["error"]["message"]
        shown = (await edge.client.get("/v1/models/a")).json()
        assert (shown["ready"], shown["loading"][0]["fraction"], shown["failed"]) == (False, 0.25, [])
        state["advert"] = advert(failed={"a": "it is cut off"})
        presence.update()
        await until(lambda: code_is("no_worker"))
        shown = (await edge.client.get("/v1/models/a")).json()
        assert (shown["loading"], shown["failed"]) == ([], [{"worker": "w9", "reason": "it is cut off"}])
        await presence.withdraw()


async def test_a_call_can_wait_for_the_outcome(broker: Broker) -> None:
    async with admin_edge(broker) as edge, asyncio.TaskGroup() as group:
        card = ModelCard(id="a", source="/models/a.gguf", created=1)
        failing = advert(failed={"a": "it is cut off"}, failed_keys={"a": card.load_key()})
        presence = Presence(broker.worker, lambda: failing)
        call = group.create_task(ask(edge, "POST", f"{PATH}?wait=true", {"source": "/models/a.gguf"}))
        await presence.start()
        failed = await call
        assert (failed.status_code, failed.json()["error"]["code"]) == (422, "model_load_failed")
        assert failed.json()["error"]["message"] == "The model 'a' does not load: it is cut off"
        # Asked for once more, it is another load, of which that worker says nothing.
        again = await ask(edge, "POST", f"{PATH}?wait=true&timeout=1", {"source": "/models/a.gguf"})
        assert again.status_code == 202
        await presence.withdraw()
