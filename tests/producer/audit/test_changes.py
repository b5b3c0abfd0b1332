"""What cannot be recorded is not done."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.subjects import STREAM_AUDIT
from producer.audit.audit import Audit
from schemas.errors import ErrorCode, ServingError
from tests.conftest import Broker
from tests.producer.audit.conftest import Open
from tests.producer.audit.test_writer import limit, records
from tests.producer.conftest import ADMIN_KEY, CONFIG, running_edge
from tests.producer.policy.stores import Beside, policy_config, running_store

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


async def test_an_edge_refuses_to_issue_a_key_that_it_cannot_record(broker: Broker, tmp_path: Path) -> None:
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    config = replace(CONFIG, policy=policy_config(tmp_path))
    body = {"name": "ci", "scopes": ["read"]}
    async with running_edge(broker, config) as edge:
        issued = await edge.client.post("/v1/admin/api_keys", json=body, headers=admin)
        assert issued.status_code == 200, issued.text
        keys = (await edge.client.get("/v1/admin/api_keys", headers=admin)).json()
        await limit(broker, 1)
        refused = await edge.client.post("/v1/admin/api_keys", json={**body, "name": "more"}, headers=admin)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
        assert "retry-after" in refused.headers
        revoked = await edge.client.delete(f"/v1/admin/api_keys/{issued.json()['id']}", headers=admin)
        assert revoked.json()["error"]["code"] == "audit_unavailable"
        assert (await edge.client.get("/v1/admin/api_keys", headers=admin)).json() == keys
        opens = await edge.client.get("/v1/models", headers={"authorization": f"Bearer {issued.json()['key']}"})
        assert opens.status_code == 200
        await limit(broker, 1 << 20)
    found = [each for each in await records(broker) if each["action"].startswith("api_key.")]
    assert [(each["action"], each["actor"], each["outcome"]) for each in found] == [
        ("api_key.issue", "root", "allowed"),
        ("api_key.issue", "root", "failed"),
        ("api_key.revoke", "root", "failed"),
    ]
    assert {each["target"] for each in (found[0], found[2])} == {issued.json()["id"]}
    assert issued.json()["key"] not in str(found)
