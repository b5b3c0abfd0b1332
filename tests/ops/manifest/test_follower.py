"""The manifest of a running edge: what it says is registered, and what cannot be read changes nothing."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from broker.registry import Registry
from ops.manifest.follower import ManifestFollower, manifest_beside
from ops.settings.settings import RegistrySettings
from producer.config import KeySpec, Scope
from producer.edge.manifest import ManifestStanding
from producer.metrics import EdgeMetrics
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, chat, put_model, running_edge, running_worker
from tests.support.counts import full_or
from tests.support.edge_process import write_document
from tests.support.waiting import until

pytestmark = pytest.mark.nats


def models(*ids: str, **fields: Any) -> dict[str, Any]:
    return {"models": {model_id: {"source": "echo", **fields} for model_id in ids}}


class Following:
    """One edge's follower, on a registry of its own."""

    def __init__(self, broker: Broker, path: Path) -> None:
        self.registry = Registry(broker.edge, watch_workers=False)
        self.standing = ManifestStanding(EdgeMetrics(CollectorRegistry()))
        self.standing.begin(path)
        self._follower = ManifestFollower(path, self.registry, self.standing, poll_s=0.05, settle_s=0.01)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Following"]:
        await self.registry.start()
        task = asyncio.create_task(self._follower.run())
        try:
            yield self
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.registry.close()

    @property
    def ids(self) -> set[str]:
        """Of the models that manifests have registered."""
        return {card.id for card in self.registry.models.values() if card.origin == "manifest"}


FAULTS: list[tuple[str | bytes | None, str]] = [
    ("models: {echo: {source: ech", "models.yaml"),  # half of it, or a slip of the pen
    ('{"models": [{"id": "ec', "models.yaml"),
    ("", "there is no list of models"),
    (b"\x89\xffmodels", "it is not text"),
    ("models: {echo: {sauce: echo}}", "models.echo.sauce"),
    (None, "No such file"),
]
ROOT = "admin-key-of-manifests"


async def test_an_edge_serves_on_whatever_happens_to_its_manifest(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each fault, and the end of it, is seen in the status, the metrics and the log."""
    path = tmp_path / "models.yaml"
    write_document(path, models("echo", "second", aliases=[]))
    config = replace(CONFIG, keys=(*CONFIG.keys, KeySpec(key=ROOT, name="root", scopes=(Scope.ADMIN,))))
    beside = manifest_beside(RegistrySettings(path, 0.05, allow_downloads=True))
    caplog.set_level(logging.INFO, "inferflux.manifest")

    async with running_worker(broker.worker), running_edge(broker, config, beside=[beside]) as edge:

        async def status() -> Any:
            answer = await edge.client.get("/v1/admin/models", headers={"authorization": f"Bearer {ROOT}"})
            return answer.json()["manifest"]

        async def is_used() -> bool:
            return bool((await status())["used"])

        async def serves() -> bool:
            answer = await edge.post({**chat(), "model": "echo"})
            return answer.status_code == 200

        async def listed() -> set[str]:
            answer = await edge.client.get("/v1/models")
            return {model["id"] for model in answer.json()["data"]}

        async def metric(name: str) -> float:
            lines = (await edge.client.get("/metrics")).text.splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith(f"inferflux_{name} "))

        await until(is_used)
        await until(serves)
        good = await status()
        assert good.pop("since") > 0
        assert good == {
            **{"path": str(path), "used": True, "error": None},
            **{"models": ["echo", "second"], "skipped": []},
        }
        assert await listed() == {"echo", "second"} and await metric("manifest_ok") == 1

        since = None
        for number, (text, words) in enumerate(FAULTS, 1):
            caplog.clear()
            if text is None:
                path.unlink()
            else:
                write_document(path, text)

            async def is_counted(number: int = number) -> bool:
                return await metric("manifest_errors_total") == number

            await until(is_counted)
            bad = await status()
            assert words in bad["error"]
            since = since or bad["since"]  # one trouble, however often the file changes meanwhile
            assert (bad["used"], bad["since"], bad["models"]) == (False, since, ["echo", "second"])
            assert await metric("manifest_ok") == 0
            assert await serves() and await listed() == {"echo", "second"}
            told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
            assert told == [f"the manifest is not used, the models stay as they were: {bad['error']}"]

        caplog.clear()
        write_document(path, models("echo", "third"))
        await until(is_used)
        again = await status()
        assert (again["error"], again["models"]) == (None, ["echo", "third"]) and again["since"] >= since
        assert await listed() == {"echo", "third"} and await metric("manifest_ok") == 1
        assert "manifest registered" in [record.getMessage() for record in caplog.records]


async def test_only_models_of_the_manifest_go_with_it(broker: Broker, tmp_path: Path) -> None:
    await put_model(broker)  # of the configuration
    path = tmp_path / "models.yaml"
    write_document(path, models("echo", "own", queue_max=7))
    async with Following(broker, path).running() as one, Following(broker, path).running() as other:
        for each in (one, other):
            await until(lambda each=each: each.standing.current.is_ok)  # type: ignore[misc]
            assert "is registered by the configuration already" in each.standing.current.skipped["echo"]  # type: ignore[union-attr]
        created = one.registry.models["own"].created
        assert one.registry.models["own"].queue_max == 7 and one.registry.models["echo"].queue_max == 256
        write_document(path, models("own", queue_max=8))
        await until(lambda: one.registry.models["own"].queue_max == 8)
        assert one.registry.models["own"].created == created
        write_document(path, {"models": []})
        await until(lambda: one.ids == set() and set(other.registry.models) == {"echo"})


@pytest.mark.slow
@settings(
    max_examples=full_or(60, reduced=6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_any_writes_end_in_the_last_valid_one(broker: Broker, tmp_path: Path, data: st.DataObject) -> None:
    ids = st.sets(st.sampled_from(["a", "b", "c", "d/e"]), max_size=4)
    bad = st.sampled_from(["", "models: {a: {sour", '{"models": [', "models: 5", "x: 1", None])
    step = st.tuples(st.booleans(), st.booleans(), ids, bad)
    steps = data.draw(st.lists(step, max_size=8))
    last = data.draw(ids)
    after = data.draw(st.lists(bad, max_size=3))
    path = tmp_path / "models.json"
    path.unlink(missing_ok=True)

    def put(text: str | None, *, in_place: bool) -> None:
        if text is None:
            path.unlink(missing_ok=True)
        elif not in_place:
            write_document(path, text)
        else:
            with path.open("w") as file:
                for place in range(0, len(text), 20):
                    file.write(text[place : place + 20])
                    file.flush()

    async with Following(broker, path).running() as one, Following(broker, path).running() as other:
        for is_valid, in_place, wanted, broken in steps:
            put(json.dumps(models(*sorted(wanted))) if is_valid else broken, in_place=in_place)
            await asyncio.sleep(0)
        put(json.dumps(models(*sorted(last))), in_place=data.draw(st.booleans()))
        for each in (one, other):
            await until(
                lambda each=each: (  # type: ignore[misc]
                    each.standing.current.is_ok and set(each.standing.current.models) == last and each.ids == last
                )
            )
        for broken in after:
            put(broken, in_place=False)
            await asyncio.sleep(0)
        if after:
            await until(lambda: not one.standing.current.is_ok and not other.standing.current.is_ok)  # type: ignore[union-attr]
        assert one.ids == other.ids == last
