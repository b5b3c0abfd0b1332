"""Edges that cannot open the newest policy: they take the new passphrase from its file, or refuse in the end."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from producer.config import PolicyConfig
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, chat, put_model, running_edge, running_worker, until_served
from tests.producer.policy.stores import ACTOR, PASSPHRASE, running_store
from tests.producer.scripted_worker import Run
from tests.support.waiting import until

pytestmark = pytest.mark.nats

NEW_PASSPHRASE = "another long passphrase"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.policy.follower.LOOK_AGAIN_S", 0.02)


def from_file(path: Path, max_stale_s: float = 300.0) -> PolicyConfig:
    path.write_text(PASSPHRASE + "\n")
    return PolicyConfig(passphrase=PASSPHRASE, passphrase_file=path, max_stale_s=max_stale_s)


async def test_a_passphrase_that_stands_in_the_file_before_the_change_leaves_no_gap(
    broker: Broker, tmp_path: Path
) -> None:
    path = tmp_path / "passphrase"
    async with running_store(broker) as one, running_store(broker, from_file(path)) as two:
        await one.set_limit(7)
        await until(lambda: two.limit == 7)
        path.write_text(NEW_PASSPHRASE)
        await one.set_limit(8)
        await until(lambda: two.limit == 8)
        await one.store.rotate_passphrase(ACTOR, NEW_PASSPHRASE)
        await one.set_limit(9)
        await until(lambda: two.limit == 9)
        assert two.store.fault is None
        await two.set_limit(10)
        await until(lambda: one.limit == 10)


async def test_a_passphrase_that_comes_later_is_taken_then(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    async with running_store(broker) as one, running_store(broker, from_file(path)) as two:
        await one.set_limit(7)
        await one.store.rotate_passphrase(ACTOR, NEW_PASSPHRASE)
        await one.set_limit(8)
        for useless in ("a wrong one", "", None):
            if useless is None:
                path.unlink()
            else:
                path.write_text(useless)
            await until(lambda: two.store.fault is not None)
        path.write_text(NEW_PASSPHRASE)
        await until(lambda: two.limit == 8)
        assert two.store.fault is None and not two.store.is_stale
        await two.set_limit(9)
        await until(lambda: one.limit == 9)


async def test_an_edge_refuses_everything_once_its_policy_is_too_old_and_serves_again_with_the_new_passphrase(
    broker: Broker, tmp_path: Path
) -> None:
    await put_model(broker)
    release = asyncio.Event()

    async def waits(run: Run) -> None:
        await run.say("a")
        await release.wait()
        await run.finish("b")

    path = tmp_path / "passphrase"
    patient = replace(CONFIG, edge_id="e2", policy=PolicyConfig(passphrase=PASSPHRASE))
    hasty = replace(CONFIG, policy=from_file(path, max_stale_s=0.05))
    async with (
        running_worker(broker.worker, waits),
        running_store(broker) as admin,
        running_edge(broker, patient) as other,
        running_edge(broker, hasty) as edge,
    ):
        await until_served(edge)
        await until_served(other)
        async with edge.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
            lines = answer.aiter_lines()
            while '"a"' not in await anext(lines):
                pass
            await admin.set_limit(0)
            await admin.store.rotate_passphrase(ACTOR, NEW_PASSPHRASE)

            async def is_refused() -> bool:
                return (await edge.client.get("/readyz")).status_code == 503

            await until(is_refused)
            ready = (await edge.client.get("/readyz")).json()["error"]
            assert ready["code"] == "policy_unavailable" and "does not open it" in ready["message"]
            for key in (KEY, "nobodys"):
                refused = await edge.post(chat(), authorization=f"Bearer {key}")
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "policy_unavailable")
                assert "retry-after" in refused.headers
            assert (await edge.client.get("/livez")).status_code == 200
            # What runs is not told to end, and an edge with more patience goes on by what it knows.
            release.set()
            assert "data: [DONE]" in [line async for line in lines]
        assert (await other.client.get("/readyz")).status_code == 200
        assert (await other.post(chat())).status_code == 200
        path.write_text(NEW_PASSPHRASE)
        await until_served(edge)
        assert (await edge.post(chat())).status_code == 200
