"""What an edge remembers of journals that it has to drop."""

import asyncio

import pytest

from broker.errors import BrokerUnavailable
from producer.edge import retention as module
from producer.edge.retention import Retention
from tests.support.waiting import until


class Hub:
    """The purging side of a journal hub. `is_away`: the broker does not answer."""

    def __init__(self) -> None:
        self.purged: list[str] = []
        self.num_purging = 0
        self.most_purging = 0
        self.is_away = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def purge(self, edge: str, request_id: str, reason: str) -> None:
        self.num_purging += 1
        self.most_purging = max(self.most_purging, self.num_purging)
        await self.goes_on.wait()
        self.num_purging -= 1
        if self.is_away:
            raise BrokerUnavailable("away")
        self.purged.append(request_id)


async def test_what_is_kept_waits_and_what_is_delivered_does_not() -> None:
    hub = Hub()
    retention = Retention(hub, resume_window_s=60)  # type: ignore[arg-type]
    task = asyncio.create_task(retention.run())
    retention.keep_for_resume("edge", "later")
    retention.drop("edge", "now")
    await until(lambda: hub.purged == ["now"])
    assert len(retention) == 1
    task.cancel()
    await asyncio.wait({task})


async def test_a_broker_that_stands_still_gathers_no_purges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRY_AGAIN_S", 0.01)
    hub = Hub()
    hub.goes_on.clear()
    hub.is_away = True
    retention = Retention(hub, resume_window_s=60)  # type: ignore[arg-type]
    task = asyncio.create_task(retention.run())
    for number in range(500):
        retention.drop("edge", str(number))
    await until(lambda: hub.num_purging == module._PARALLEL)
    hub.is_away = False
    hub.goes_on.set()
    await until(lambda: len(hub.purged) == 500)
    assert hub.most_purging == module._PARALLEL
    assert sorted(hub.purged, key=int) == [str(number) for number in range(500)]
    task.cancel()
    await asyncio.wait({task})


async def test_what_is_due_at_the_end_is_still_dropped() -> None:
    hub = Hub()
    retention = Retention(hub, resume_window_s=60)  # type: ignore[arg-type]
    retention.keep_for_resume("edge", "later")
    for number in range(100):
        retention.drop("edge", str(number))
    await retention.close(10)
    assert len(hub.purged) == 100


async def test_it_remembers_so_many_and_leaves_the_rest_to_the_streams_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_KEPT", 3)
    retention = Retention(Hub(), resume_window_s=60)  # type: ignore[arg-type]
    for number in range(5):
        retention.keep_for_resume("edge", str(number))
    assert (len(retention), retention.num_forgotten) == (3, 2)
