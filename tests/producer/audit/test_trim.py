"""Making room in the broker for further records."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from broker.audit_stream import AuditStream
from broker.errors import Refused
from producer.audit.audit import Audit
from producer.audit.export import FileVerifier
from producer.audit.report import Report
from schemas.audit import AuditEvent, Outcome
from tests.conftest import Broker
from tests.producer.audit.conftest import Open

pytestmark = pytest.mark.nats


async def export(audit: Audit, path: Path) -> None:
    content = b"".join([chunk async for chunk in audit.reader.export()])
    await asyncio.to_thread(path.write_bytes, content)


async def trim(broker: Broker, path: Path) -> subprocess.CompletedProcess[str]:
    server = broker.server
    where = ["--nats-url", server.url, "--nats-credentials", str(server.credentials)]
    command = [sys.executable, "-m", "ops.cli.inferctl", "bus", "trim-audit", "--exported", str(path), *where]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)


def change() -> AuditEvent:
    return AuditEvent("limits.set", Outcome.ALLOWED, actor="root")


def verify(audit: Audit, path: Path) -> Report:
    verifier = FileVerifier(audit.keys)
    for line in path.read_bytes().splitlines():
        verifier.feed(line)
    return verifier.finish()


async def test_what_was_exported_is_removed_and_both_parts_verify(
    broker: Broker, open_audit: Open, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    async with open_audit() as audit, open_audit("e2") as other:
        for _ in range(3):
            await audit.require(change())
            await other.require(change())
        await export(audit, first)
        for each in (audit, other):
            await each.require(change())
        done = await trim(broker, first)
        assert done.returncode == 0, done.stderr
        last_seq = verify(audit, first).last_seq
        assert f"begins at sequence {last_seq}" in done.stdout
        await audit.require(change())
        report = await audit.reader.verify()
        assert (report.problems, report.first_seq) == ([], last_seq)
        await export(audit, second)
        for path in (first, second):
            assert verify(audit, path).problems == []
        refused = await trim(broker, first)
        assert refused.returncode == 0  # there is nothing left to remove
        second.write_bytes(second.read_bytes()[:-10])
        assert "not a whole export" in (await trim(broker, second)).stderr


async def test_another_brokers_export_removes_nothing(broker: Broker, open_audit: Open, tmp_path: Path) -> None:
    path = tmp_path / "export"
    async with open_audit() as audit:
        await audit.require(change())
        await export(audit, path)
    await broker.topology.api("STREAM.DELETE.INFERFLUX_AUDIT")
    await broker.apply()
    async with open_audit() as audit:
        for _ in range(4):
            await audit.require(change())
        done = await trim(broker, path)
        assert (done.returncode, "is not the one" in done.stderr) == (1, True)


async def test_an_edge_cannot_remove_anything(broker: Broker, open_audit: Open) -> None:
    async with open_audit() as audit:
        await audit.require(change())
    for work in (AuditStream(broker.edge).trim(2), broker.edge.api("STREAM.MSG.DELETE.INFERFLUX_AUDIT", {"seq": 1})):
        with pytest.raises(Refused):
            await work
