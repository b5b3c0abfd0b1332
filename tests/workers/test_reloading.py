"""A whole worker in this process, and what it makes of cards that come, change and go."""

import asyncio
import logging
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.connection import BrokerConfig
from broker.registry import Registry
from broker.roles import Role
from broker.topology import Topology
from broker.topology_keeper import TopologyKeeper
from broker.worker_control import WorkerControl
from schemas.control import ModelCard, WorkerAdvert
from tests.conftest import Broker
from tests.support.waiting import until
from tests.workers.harness import EdgeSide, edge_side, end_of, tokens
from workers.config import NotForThisWorker, Progress, WorkerConfig, WorkerModel, WorkerReady
from workers.runners.base import RunnerError, RunnerSpec
from workers.worker import run_worker

pytestmark = pytest.mark.nats

SLOW = "echo:random?rate=40"
FAST = "echo:repeat"


@dataclass
class Plans:
    """Stands for the command line's search for files: what is planned for a card, slowly where a test wants it."""

    planned: list[str] = field(default_factory=list)
    may_go_on: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.may_go_on.set()

    def __call__(self, card: ModelCard, progress: Progress) -> WorkerModel:
        progress("looking for the files", 0.5)
        self.planned.append(card.id)
        assert self.may_go_on.wait(60)
        if card.source.startswith("/"):
            try:
                Path(card.source).read_text()
            except OSError as error:
                raise RunnerError(f"model {card.source}: {error.strerror}") from None
        if card.backend == "torch":
            raise NotForThisWorker("it needs torch")
        source = FAST if card.source.startswith("/") else card.source
        spec = RunnerSpec(card.id, source, context=card.context, sequences=card.sequences)
        return WorkerModel(spec, "echo", "test", card.max_output_tokens, memory_bytes=(card.context or 0) * 2**20)


@dataclass
class Fleet:
    """A worker that serves all cards, and the registry as topology and edge see it."""

    registry: Registry
    plans: Plans
    edge: EdgeSide
    ready: WorkerReady | None = None

    @property
    def advert(self) -> WorkerAdvert | None:
        return self.registry.workers.get("w1")

    async def put(self, **fields: object) -> ModelCard:
        card = ModelCard.model_validate({"source": FAST, "created": 1, "sequences": 4, **fields})
        await self.registry.put_model(card)
        return card

    async def until_served(self, card: ModelCard) -> None:
        await until(lambda: any(served.load_key == card.load_key() for served in self.registry.serving(card.id)))

    async def until_advert(self, is_so: Callable[[WorkerAdvert], bool]) -> None:
        await until(lambda: self.advert is not None and is_so(self.advert))

    def loads(self, model: str, result: str) -> float:
        assert self.ready is not None
        with urllib.request.urlopen(self.ready.metrics_url, timeout=30) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        labels = {"model": model, "result": result}
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "inferflux_model_loads_total" and sample.labels == labels
        )


@asynccontextmanager
async def running_fleet(broker: Broker, *, memory_bytes: int | None = None) -> AsyncIterator[Fleet]:
    registry = Registry(broker.topology)
    keeper = TopologyKeeper(Topology(broker.topology), registry)
    await keeper.start()
    plans = Plans()
    config = WorkerConfig(
        "w1", (), metrics_port=0, wants=lambda _: True, plan=plans, must_serve=False, memory_bytes=memory_bytes
    )
    ready: asyncio.Future[WorkerReady] = asyncio.get_running_loop().create_future()
    login = BrokerConfig(broker.server.url, Role.WORKER, "w1", broker.server.credentials)
    task = asyncio.create_task(run_worker(config, login, on_ready=ready.set_result))
    try:
        async with edge_side(broker) as edge:
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            yield Fleet(registry, plans, edge, ready.result())
    finally:
        plans.may_go_on.set()
        await WorkerControl(broker.edge).drain("w1")
        await task
        await keeper.close()
        await registry.close()


async def test_cards_come_change_and_go_while_requests_run(broker: Broker) -> None:
    async with running_fleet(broker) as fleet:
        first = await fleet.put(id="echo", source=SLOW)
        await fleet.until_served(first)
        edge = fleet.edge
        # Eight requests on four places: half of them wait in the queue when the model changes.
        before = [await edge.submit(edge.request(max_tokens=30)) for _ in range(8)]
        await tokens(before[0], 2)
        fleet.plans.may_go_on.clear()
        second = await fleet.put(id="echo", source=SLOW, sequences=2)
        await fleet.until_advert(lambda advert: [one.stage for one in advert.loading] == ["looking for the files"])
        during = [await edge.submit(edge.request(max_tokens=10)) for _ in range(2)]
        fleet.plans.may_go_on.set()
        await fleet.until_served(second)
        assert [served.slots for served in fleet.registry.serving("echo")] == [2]
        after = [await edge.submit(edge.request(max_tokens=10)) for _ in range(3)]
        # Unloaded with a queue: all of it is answered, and then nobody serves it.
        await fleet.registry.delete_model("echo")
        for view in (*before, *during, *after):
            await end_of(view)
            assert type(view.fold.terminal).__name__ == "Finished"
        await fleet.until_advert(lambda advert: advert.models == ())
        assert fleet.loads("echo", "ok") == 2


async def test_a_load_that_fails_leaves_what_serves(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_fleet(broker) as fleet:
        good = await fleet.put(id="echo")
        await fleet.until_served(good)
        missing = tmp_path / "later"
        wanted = await fleet.put(id="echo", source=str(missing))
        await fleet.until_advert(lambda advert: "echo" in advert.failed)
        assert fleet.advert is not None
        assert fleet.advert.failed == {"echo": f"model {missing}: No such file or directory"}
        assert fleet.advert.failed_keys == {"echo": wanted.load_key()}
        assert [served.load_key for served in fleet.registry.serving("echo")] == [good.load_key()]
        assert await end_of(await fleet.edge.submit(fleet.edge.request("hello"))) == "hello"
        assert fleet.loads("echo", "failed") >= 1
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert told == [f"model echo goes on as it was: model {missing}: No such file or directory"]
        # The file comes, and nobody has to say so.
        missing.write_text("here")
        await fleet.until_served(wanted)
        await fleet.until_advert(lambda advert: not advert.failed)


async def test_what_is_too_big_is_refused_until_there_is_room(broker: Broker) -> None:
    async with running_fleet(broker, memory_bytes=1000 * 2**20) as fleet:
        await fleet.until_served(await fleet.put(id="echo", context=256))
        await fleet.until_served(await fleet.put(id="big", context=512))
        bigger = await fleet.put(id="bigger", context=600)
        await fleet.until_advert(lambda advert: "bigger" in advert.failed)
        assert fleet.advert is not None
        reason = "bigger needs about 600 MiB, and of the 1000 MiB of runtime.memory_bytes 232 MiB are left"
        assert fleet.advert.failed == {"bigger": reason}
        assert await end_of(await fleet.edge.submit(fleet.edge.request("hello"))) == "hello"
        await fleet.registry.delete_model("big")
        await fleet.until_served(bigger)
        await fleet.until_advert(lambda advert: not advert.failed)


async def test_what_another_process_has_to_serve_is_no_failure(broker: Broker) -> None:
    async with running_fleet(broker) as fleet:
        other = await fleet.put(id="other", backend="torch")
        await until(lambda: "other" in fleet.plans.planned)
        await fleet.until_served(await fleet.put(id="echo"))
        await fleet.until_advert(lambda advert: advert.skipped == {"other": other.load_key()})
        assert fleet.advert is not None
        assert (fleet.advert.failed, [served.id for served in fleet.advert.models]) == ({}, ["echo"])


async def test_what_changes_during_a_load_is_loaded_in_its_place(broker: Broker) -> None:
    async with running_fleet(broker) as fleet:
        fleet.plans.may_go_on.clear()
        card = await fleet.put(id="echo", sequences=1)
        await until(lambda: fleet.plans.planned == ["echo"])
        latest = await fleet.put(id="echo", sequences=3)
        fleet.plans.may_go_on.set()
        await fleet.until_served(latest)
        assert fleet.loads("echo", "ok") == 1
        # What no engine depends on is no reason to load.
        await fleet.registry.put_model(latest.model_copy(update={"default": True, "aliases": ("x",)}))
        await fleet.until_served(await fleet.put(id="second"))
        assert fleet.plans.planned == ["echo", "echo", "second"]
        assert card.load_key() != latest.load_key()
