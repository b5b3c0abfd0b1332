import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.registry import Presence, Registry
from broker.roles import Role
from broker.worker_control import WorkerControl, serve_control
from schemas.control import ModelCard, ServedModel, WorkerAdvert
from tests.conftest import Broker
from tests.support.waiting import until

pytestmark = pytest.mark.nats


def _card(model_id: str, created: int = 1, **changes: object) -> ModelCard:
    return ModelCard.model_validate({"id": model_id, "source": "echo", "created": created, **changes})


def _advert(worker_id: str, *, draining: bool = False, slots: int = 2, model: str = "echo") -> WorkerAdvert:
    served = ServedModel(
        id=model,
        backend="echo",
        reason="asked for",
        fingerprint="f",
        context=100,
        slots=slots,
        max_token_bytes=4,
        bytes_per_token=2.0,
        has_chat_template=True,
    )
    return WorkerAdvert(
        id=worker_id, host="h", pid=1, version="0", models=(served,), free_slots=slots, draining=draining
    )


async def _until(registry: Registry, condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    registry.on_change(changed.set)
    while not condition():
        changed.clear()
        await changed.wait()


async def test_a_registry_sees_what_another_one_writes(broker: Broker) -> None:
    early, writer = Registry(broker.edge), Registry(broker.topology)
    await early.start()
    await writer.start()
    await writer.put_model(_card("org/model.v1"))
    assert writer.models == {"org/model.v1": _card("org/model.v1")}
    late = Registry(broker.worker, watch_workers=False)
    await late.start()
    assert late.models == writer.models
    await _until(early, lambda: early.models == writer.models)
    await writer.delete_model("org/model.v1")
    await _until(early, lambda: not early.models)
    for registry in (early, writer, late):
        await registry.close()


async def test_writing_what_is_there_already_writes_nothing(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    await registry.put_model(_card("m"))
    await registry.put_model(_card("m"))
    await registry.delete_model("unknown")
    info = await broker.topology.api("STREAM.INFO.KV_models")
    assert info["state"]["last_seq"] == 1
    await registry.close()


async def test_writers_that_race_take_turns(broker: Broker) -> None:
    first, second = Registry(broker.edge), Registry(broker.topology)
    await first.start()
    await second.start()
    await asyncio.gather(
        *(registry.put_model(_card("m", created)) for created in range(1, 4) for registry in (first, second))
    )
    last = (await broker.topology.api("STREAM.INFO.KV_models"))["state"]["last_seq"]
    await until(lambda: first._revisions["m"] == second._revisions["m"] == last)
    assert first.models == second.models
    await first.close()
    await second.close()


async def test_names_resolve_by_id_alias_and_default(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    assert registry.resolve(None) is None
    await registry.put_model(_card("a", aliases=("x",)))
    assert registry.resolve(None) == registry.resolve("default") == registry.models["a"]
    await registry.put_model(_card("b", default=True))
    assert registry.resolve(None) == registry.resolve("default") == registry.models["b"]
    assert registry.resolve("x") == registry.resolve("a") == registry.models["a"]
    assert registry.resolve("nothing") is None
    await registry.close()


async def test_workers_are_seen_while_they_say_so(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    state = {"advert": _advert("w1")}
    presence = Presence(broker.worker, lambda: state["advert"])
    await presence.start()
    await _until(registry, lambda: bool(registry.serving("echo")))
    assert registry.slots() == 2
    state["advert"] = _advert("w1", draining=True)
    presence.update()
    await _until(registry, lambda: not registry.serving("echo"))
    assert registry.workers["w1"].draining
    await presence.withdraw()
    await _until(registry, lambda: not registry.workers)
    # Nothing is remembered of it: workers come back under new names.
    assert not registry._seen
    await registry.close()


async def test_presence_comes_back_with_the_broker(broker: Broker) -> None:
    presence = Presence(broker.worker, lambda: _advert("w1"))
    await presence.start()
    await broker.server.kill()
    await broker.topology.wait_connected(0)
    await broker.server.start()
    await broker.topology.wait_connected(10)
    await broker.topology.api("STREAM.PURGE.KV_workers")
    presence.update()
    registry = Registry(broker.edge)
    await registry.start()
    await _until(registry, lambda: "w1" in registry.workers)
    await presence.withdraw()
    await registry.close()


async def test_a_worker_that_dies_vanishes(broker: Broker) -> None:
    config = (await broker.topology.api("STREAM.INFO.KV_workers"))["config"]
    sooner = {"max_age": 10**9, "duplicate_window": 10**9}
    await broker.topology.api("STREAM.UPDATE.KV_workers", {**config, **sooner})
    registry = Registry(broker.edge)
    await registry.start()
    dying = await broker.server.connect(Role.WORKER)
    presence = Presence(dying, lambda: _advert("w1"))
    await presence.start()
    await _until(registry, lambda: "w1" in registry.workers)
    await dying.close()
    await _until(registry, lambda: "w1" not in registry.workers)
    await registry.close()
    await presence.withdraw()


async def test_a_worker_whose_expiry_was_missed_is_dropped(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.registry._STALE_S", 0.2)
    monkeypatch.setattr("broker.registry._SWEEP_S", 0.05)
    registry = Registry(broker.edge)
    await registry.start()
    await broker.worker.publish_acked("$KV.workers.w1", _advert("w1").model_dump_json().encode())
    await _until(registry, lambda: "w1" in registry.workers)
    await _until(registry, lambda: "w1" not in registry.workers)
    assert not registry._seen
    await registry.close()


async def test_a_worker_that_answers_is_there_though_its_entry_is_gone(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.registry._STALE_S", 0.2)
    monkeypatch.setattr("broker.registry._SWEEP_S", 0.05)
    control, answered = WorkerControl(broker.edge), asyncio.Queue[bool]()

    async def answers(worker_id: str) -> bool:
        answer = await control.answers(worker_id)
        answered.put_nowait(answer)
        return answer

    registry = Registry(broker.edge, answers=answers)
    await registry.start()
    listening = await serve_control(broker.worker, "w1", _never, _never)
    await broker.worker.publish_acked("$KV.workers.w1", _advert("w1").model_dump_json().encode())
    await broker.topology.api("STREAM.PURGE.KV_workers")
    for _ in range(3):
        assert await answered.get()
        assert "w1" in registry.workers
    await listening.close()
    await _until(registry, lambda: "w1" not in registry.workers)
    await registry.close()


async def _never() -> Any:
    raise AssertionError("nobody asked it")


async def test_what_is_no_document_is_ignored(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    await broker.edge.publish_acked("$KV.models.bad", b'{"id": 1}')
    await broker.edge.publish_acked("$KV.models.worse", b"\xff")
    await broker.edge.publish_acked("$KV.models.=zz", b"{}")
    await registry.put_model(_card("good"))
    assert set(registry.models) == {"good"}
    await registry.close()


async def test_what_a_newer_release_says_besides_is_ignored_and_kept(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    advert = _advert("w1").model_dump(mode="json")
    advert["models"][0]["speed"] = {"tokens_per_s": 7}
    await broker.worker.publish_acked("$KV.workers.w1", json.dumps({**advert, "zone": "north"}).encode())
    await _until(registry, lambda: registry.workers.get("w1") == _advert("w1"))
    newer = {**_card("m", context=64).model_dump(mode="json"), "draft": "small"}
    await broker.topology.publish_acked("$KV.models.m", json.dumps(newer).encode())
    await _until(registry, lambda: registry.models.get("m") == _card("m", context=64))
    # What this release changes of the card takes nothing away from it.
    await registry.set_default("m")
    stored = await broker.topology.api("STREAM.MSG.GET.KV_models", {"last_by_subj": "$KV.models.m"})
    assert json.loads(base64.b64decode(stored["message"]["data"])) == {**newer, "default": True}
    await registry.close()


async def test_a_card_that_cannot_be_read_leaves_what_was(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    await registry.put_model(_card("m"))
    for payload in (b"{", b'{"id": "m"}', json.dumps({**_card("m").model_dump(), "backend": "next"}).encode()):
        await broker.edge.publish_acked("$KV.models.m", payload)
    await registry.put_model(_card("other"))
    assert set(registry.models) == {"m", "other"}
    # And it can be written over.
    await registry.put_model(_card("m", 2))
    assert registry.models["m"].created == 2
    await registry.close()


async def test_a_bucket_that_was_lost_is_empty(broker: Broker) -> None:
    registry = Registry(broker.edge)
    await registry.start()
    await registry.put_model(_card("m"))
    await broker.topology.api("STREAM.DELETE.KV_models")
    await broker.apply()
    await _until(registry, lambda: not registry.models)
    await registry.put_model(_card("m"))
    assert "m" in registry.models
    await registry.close()
