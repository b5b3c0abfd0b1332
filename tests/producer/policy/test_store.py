"""The stored policy, on a real broker."""

import asyncio
import stat
from pathlib import Path

import pytest

from schemas.errors import ErrorCode, ServingError
from tests.conftest import Broker
from tests.producer.policy.stores import ACTOR, policy_config, running_store
from tests.producer.policy.tenants import with_tenant
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def test_a_change_holds_at_once_and_at_every_other_edge(broker: Broker) -> None:
    async with running_store(broker) as one, running_store(broker) as two:
        assert (one.store.version, one.limit) == (0, 0)
        document = await one.set_limit(7)
        assert (document.changed_by, document.action, one.limit) == ("root", "limits.set", 7)
        await until(lambda: two.limit == 7)
        await two.set_limit(8)
        await until(lambda: one.limit == 8)
        assert (one.store.version, two.store.version) == (2, 2)


async def test_it_is_still_there_after_a_restart_of_edges_and_broker(broker: Broker) -> None:
    async with running_store(broker) as one:
        await one.set_limit(7)
    await broker.server.restart()
    async with running_store(broker) as again:
        assert (again.store.version, again.limit) == (1, 7)


async def test_nothing_of_the_document_can_be_read_in_the_broker_or_in_the_copy(broker: Broker, tmp_path: Path) -> None:
    config = policy_config(tmp_path / "edge")
    async with running_store(broker, config) as one:
        await one.set_limit(7)
        assert config.store is not None
        await until(config.store.exists)
        copy = config.store.read_bytes()
        assert stat.S_IMODE(config.store.stat().st_mode) == 0o600
        [entry] = await one.store._bucket.history()
    assert copy == entry.data
    for word in (b"requests_per_minute", b"root", b"limits"):
        assert word not in copy


async def test_concurrent_changes_from_two_edges_are_all_kept(broker: Broker) -> None:
    async with running_store(broker) as one, running_store(broker) as two:
        names = [f"tenant-{number}" for number in range(30)]
        await asyncio.gather(
            *(
                (one if number % 2 else two).store.change(ACTOR, "limits.set", with_tenant(name))
                for number, name in enumerate(names)
            )
        )
        await until(lambda: one.store.version == two.store.version == len(names))
        assert set(one.live.current.limits.tenants) == set(two.live.current.limits.tenants) == set(names)


async def test_without_a_passphrase_or_a_key_file_nothing_can_be_changed(broker: Broker) -> None:
    async with running_store(broker, policy_config(passphrase=None)) as one:
        with pytest.raises(ServingError, match="INFERFLUX_POLICY_PASSPHRASE") as refused:
            await one.set_limit(7)
    assert refused.value.code is ErrorCode.POLICY_UNAVAILABLE


async def test_two_processes_of_a_machine_make_one_key_file(broker: Broker, tmp_path: Path) -> None:
    config = policy_config(tmp_path, passphrase=None)
    async with running_store(broker, config) as one, running_store(broker, config) as two:
        await asyncio.gather(one.set_limit(1), two.set_limit(2))
        await until(lambda: one.store.version == two.store.version == 2)
    assert config.key_file is not None
    assert stat.S_IMODE(config.key_file.stat().st_mode) == 0o600
    async with running_store(broker, config) as again:
        assert again.store.encryption == "key file"
