"""What cannot be recorded is not done."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.subjects import STREAM_AUDIT
from producer.audit.audit import Audit
from schemas.errors import ErrorCode, ServingError
from tests.conftest import Broker
from tests.producer.audit.conftest import Open
from tests.producer.audit.test_writer import limit, records
from tests.producer.policy.stores import Beside, running_store

pytestmark = pytest.mark.nats


@asynccontextmanager
async def audited_store(broker: Broker, audit: Audit) -> AsyncIterator[Beside]:
    async with running_store(broker, audit=audit) as beside:
        await beside.set_limit(1)
        yield beside


async def fill(broker: Broker, log: Path) -> None:
    await limit(broker, 1)


async def delete(broker: Broker, log: Path) -> None:
    await broker.topology.api(f"STREAM.DELETE.{STREAM_AUDIT}")


async def take_log_away(broker: Broker, log: Path) -> None:
    log.parent.rename(log.parent.with_name("away"))


@pytest.mark.parametrize("harm", [fill, delete, take_log_away])
async def test_a_change_is_refused_and_nothing_is_changed(
    broker: Broker, open_audit: Open, tmp_path: Path, harm: Callable[[Broker, Path], Awaitable[None]]
) -> None:
    log = tmp_path / "logs" / "audit.log"
    log.parent.mkdir()
    async with open_audit(log=log) as audit, audited_store(broker, audit) as beside:
        document, version = beside.store.document, beside.store.version
        await harm(broker, log)
        with pytest.raises(ServingError) as caught:
            await beside.set_limit(2)
        assert (caught.value.code, caught.value.status) == (ErrorCode.AUDIT_UNAVAILABLE, 503)
        assert (beside.store.document, beside.store.version, beside.limit) == (document, version, 1)
    async with running_store(broker) as other:
        assert (other.store.version, other.limit) == (version, 1)


async def test_a_refused_change_is_recorded_as_such_once_that_can_be_done(broker: Broker, open_audit: Open) -> None:
    async with open_audit() as audit, audited_store(broker, audit) as beside:
        await limit(broker, 1)
        with pytest.raises(ServingError):
            await beside.set_limit(2)
        await limit(broker, 1 << 20)
        await beside.set_limit(3)
    found = [(each["outcome"], each.get("reason")) for each in await records(broker) if each["action"] == "limits.set"]
    assert found == [("allowed", None), ("failed", "audit_unavailable"), ("allowed", None)]


async def test_a_change_that_fails_after_it_was_recorded_is_recorded_as_failed(
    broker: Broker, open_audit: Open
) -> None:
    async with open_audit() as audit, audited_store(broker, audit) as beside:
        await limit(broker, 1, "KV_policy")
        with pytest.raises(ServingError):
            await beside.set_limit(2)
    found = [(each["outcome"], each.get("reason")) for each in await records(broker)]
    assert found[-3:-1] == [("allowed", None), ("failed", "policy_unavailable")]
