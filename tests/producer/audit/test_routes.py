"""The record as administrators reach it."""

from typing import Any

import pytest

from broker.subjects import STREAM_AUDIT, audit_subject
from schemas.audit import AuditEvent, Outcome
from tests.conftest import Broker
from tests.producer.audit.conftest import Open
from tests.producer.conftest import ADMIN_KEY, CONFIG, READ_KEY, Edge, running_edge
from tests.producer.scripted_worker import ScriptedWorker
from tests.support.waiting import until

pytestmark = pytest.mark.nats
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
NUM_CHANGES = 150


async def get(edge: Edge, path: str = "", **params: Any) -> Any:
    answer = await edge.client.get(f"/v1/admin/audit{path}", params=params, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def record_changes(broker: Broker, open_audit: Open) -> None:
    """By another edge, in blocks of one and of many."""
    async with open_audit("other", pepper=CONFIG.pepper) as audit:
        for number in range(5):
            await audit.require(change(number))
        for number in range(5, NUM_CHANGES):
            audit.note(change(number))


def change(number: int) -> AuditEvent:
    outcome = Outcome.FAILED if number % 10 == 0 else Outcome.ALLOWED
    return AuditEvent(f"limits.{'set' if number % 2 else 'reset'}", outcome, actor=f"admin-{number % 3}",
                      target=str(number))  # fmt: skip


def targets(body: Any) -> list[int]:
    return [int(each["target"]) for each in body["data"]]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_lead_from_one_to_the_next(broker: Broker, open_audit: Open, order: str) -> None:
    await record_changes(broker, open_audit)
    async with running_edge(broker) as edge:
        found: list[int] = []
        after: dict[str, str] = {}
        while True:
            body = await get(edge, action="limits", limit=7, order=order, **after)
            found += targets(body)
            if not body["has_more"]:
                break
            assert len(body["data"]) == 7
            after = {"after": body["last_id"]}
    expected = list(range(NUM_CHANGES))
    assert found == (expected if order == "asc" else expected[::-1])


async def test_filters(broker: Broker, open_audit: Open) -> None:
    await record_changes(broker, open_audit)
    async with running_edge(broker) as edge:
        by_actor = await get(edge, actor="admin-1", limit=1000)
        assert set(targets(by_actor)) == set(range(1, NUM_CHANGES, 3))
        assert set(targets(await get(edge, action="limits.reset", limit=1000))) == set(range(0, NUM_CHANGES, 2))
        assert set(targets(await get(edge, outcome="failed", limit=1000))) == set(range(0, NUM_CHANGES, 10))
        times = [each["at"] for each in by_actor["data"]]
        assert len((await get(edge, since=times[-1], until=times[0], actor="admin-1", limit=1000))["data"]) == 50
        assert (await get(edge, since="2100-01-01", limit=1000))["data"] == []
        assert (await get(edge, until="2001-01-01T00:00:00+02:00", limit=1000))["data"] == []
        assert (await get(edge, since="1000000000", action="limits.set", limit=1))["data"] != []


async def test_a_long_search_is_told_in_parts(
    broker: Broker, open_audit: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.audit.reading._WINDOW", 2)
    monkeypatch.setattr("producer.audit.reading._MAX_WINDOWS", 1)
    await record_changes(broker, open_audit)
    async with running_edge(broker) as edge:
        for order in ("asc", "desc"):
            found: list[int] = []
            after: dict[str, str] = {}
            while (body := await get(edge, actor="admin-1", order=order, limit=1000, **after))["has_more"]:
                found += targets(body)
                after = {"after": body["last_id"]}
            assert len(found + targets(body)) == 50


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"since": "yesterday"}, "since"),
        ({"until": "1e400"}, "until"),
        ({"after": "x"}, "after"),
        ({"outcome": "good"}, "outcome"),
        ({"order": "up"}, "order"),
        ({"actor": ""}, "actor"),
        ({"who": "me"}, "who"),
    ],
)
async def test_a_bad_filter_is_named(edge: Edge, params: dict[str, str], param: str) -> None:
    answer = await edge.client.get("/v1/admin/audit", params=params, headers=ADMIN)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["", "/verify", "/export"])
async def test_only_administrators_get_in(edge: Edge, path: str) -> None:
    answer = await edge.client.get(f"/v1/admin/audit{path}", headers={"authorization": f"Bearer {READ_KEY}"})
    assert answer.status_code == 403


async def test_what_was_exported_is_whole_and_verified(broker: Broker, open_audit: Open) -> None:
    await record_changes(broker, open_audit)
    async with running_edge(broker) as edge:
        assert (await get(edge, "/verify"))["ok"]
        exported = (await edge.client.get("/v1/admin/audit/export", headers=ADMIN)).content
        lines = exported.split(b"\n")[:-1]
        assert len(lines) >= NUM_CHANGES + 5
        report = await verify_file(edge, exported)
        assert (report["ok"], report["kind"], report["records"]) == (True, "export", len(lines) - 2)
        flipped = exported.replace(b'"target":"77"', b'"target":"78"')
        report = await verify_file(edge, flipped)
        bad = next(number for number, line in enumerate(lines, start=1) if b'"target":"77"' in line)
        assert (report["ok"], report["problems"][0]["line"]) == (False, bad)
        assert report["problems"][0]["reason"] == "its content is not what was sealed"
        without = b"\n".join(lines[:50] + lines[51:]) + b"\n"
        report = await verify_file(edge, without)
        assert report["problems"][0]["line"] == 51
        assert not (await verify_file(edge, b"\n".join(lines[:-40])))["ok"]


async def verify_file(edge: Edge, content: bytes) -> Any:
    answer = await edge.client.post("/v1/admin/audit/verify", content=content, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n", b"\x00\xff" * 1000, b"[1]\n" * 100, b'{"object":"audit.export"}\n']
)
async def test_what_is_no_log_is_told_as_such(edge: Edge, content: bytes) -> None:
    report = await verify_file(edge, content)
    assert report["ok"] == (content == b"")


async def test_a_line_without_end_is_refused(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.edge.routes.admin.audit._MAX_LINE", 1000)
    answer = await edge.client.post("/v1/admin/audit/verify", content=b"x" * 5000, headers=ADMIN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")


async def test_records_taken_out_of_the_stream_are_missed(broker: Broker, open_audit: Open) -> None:
    await record_changes(broker, open_audit)
    async with running_edge(broker) as edge:
        await broker.topology.api(f"STREAM.MSG.DELETE.{STREAM_AUDIT}", {"seq": 3})
        report = await get(edge, "/verify")
        assert not report["ok"]
        assert report["problems"][0]["reason"] == "sequence 3 is not there, 1 in all"


async def test_what_others_put_into_the_stream_is_named(broker: Broker, open_audit: Open) -> None:
    await record_changes(broker, open_audit)
    await broker.edge.publish_acked(audit_subject("other"), b'{"action":"forged"}')
    async with running_edge(broker) as edge:
        report = await get(edge, "/verify")
        assert (report["ok"], report["problems"][0]["reason"]) == (False, "it does not end as a record does")


async def test_the_newest_records_taken_out_are_missed_by_their_writer(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker) as edge:

        async def has_started() -> bool:
            return bool((await get(edge))["data"])

        await until(has_started)
        await broker.topology.api(f"STREAM.PURGE.{STREAM_AUDIT}")
        report = await get(edge, "/verify")
        assert "the end is cut off" in report["problems"][0]["reason"]


async def test_the_record_cannot_be_read_without_a_broker(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker) as edge:
        await broker.topology.api(f"STREAM.DELETE.{STREAM_AUDIT}")
        for path in ("", "/verify", "/export"):
            answer = await edge.client.get(f"/v1/admin/audit{path}", headers=ADMIN)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable")


async def test_an_export_is_recorded_itself(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker) as edge:
        await edge.client.get("/v1/admin/audit/export", headers=ADMIN)

        async def is_recorded() -> bool:
            return [each["actor"] for each in (await get(edge, action="audit.export"))["data"]] == ["root"]

        await until(is_recorded)
