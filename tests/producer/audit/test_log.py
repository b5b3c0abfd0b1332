"""The audit log of an edge: a copy of its chain, through rotation, full disks and its own end."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.audit_stream import AuditStream
from producer.audit.export import FileVerifier
from producer.audit.keys import AuditKeys
from producer.audit.log_file import AuditLog
from producer.audit.report import Report
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError
from tests.conftest import Broker
from tests.producer.audit.conftest import PEPPER, Open

pytestmark = pytest.mark.nats


def change(number: int = 0) -> AuditEvent:
    return AuditEvent("limits.set", Outcome.ALLOWED, actor="root", target=str(number))


def verify(*paths: Path) -> Report:
    verifier = FileVerifier(AuditKeys(PEPPER))
    for path in paths:
        for line in path.read_bytes().split(b"\n")[:-1]:
            verifier.feed(line)
    return verifier.finish()


async def test_it_has_every_record_of_the_edge_and_is_private(open_audit: Open, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with open_audit(log=log) as audit:
        for number in range(300):
            audit.note(change(number))
        await audit.require(change())
        assert verify(log).num_records == 302
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert (verify(log).problems, verify(log).num_records) == ([], 303)


async def test_a_renamed_log_is_left_and_a_new_one_goes_on(open_audit: Open, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with open_audit(log=log) as audit:
        await audit.require(change(1))
        log.rename(tmp_path / "audit.log.1")
        await audit.require(change(2))
    assert verify(tmp_path / "audit.log.1", log).num_records == 4
    assert verify(log).is_ok


async def test_what_a_stopped_edge_did_not_write_is_written_by_its_successor(
    broker: Broker, open_audit: Open, tmp_path: Path
) -> None:
    log, kept = tmp_path / "audit.log", tmp_path / "kept"
    async with open_audit(log=log) as audit:
        await audit.require(change(1))
        kept.write_bytes(log.read_bytes())
        await audit.require(change(2))
    # As if it had been killed behind the first change, in the middle of a line.
    log.write_bytes(kept.read_bytes() + b'{"v":1,"wri')
    async with open_audit(log=log) as audit:
        await audit.require(change(3))
    report = verify(log)
    assert (report.problems, report.num_records, report.num_torn) == ([], 7, 1)


async def test_a_log_that_cannot_be_written_refuses_changes_and_catches_up(open_audit: Open, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "audit.log"
    async with open_audit(log=log) as audit:
        await audit.require(change(1))
        folder.rename(tmp_path / "away")
        with pytest.raises(ServingError) as caught:
            await audit.require(change(2))
        assert caught.value.code is ErrorCode.AUDIT_UNAVAILABLE
        assert "the audit log cannot be written" in caught.value.message
        audit.note(change(3))
        (tmp_path / "away").rename(folder)
        await audit.require(change(4))
    report = verify(log)
    # The refused change stands there twice: as it was asked for, and as refused.
    assert (report.problems, report.num_records) == ([], 7)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: a write ends where the limit is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_line_that_a_full_disk_cut_off_is_written_again(open_audit: Open, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with open_audit(log=log) as audit:
        await audit.require(change(1))
        with no_file_larger_than(log.stat().st_size + 100):
            for number in (2, 3):
                with pytest.raises(ServingError):
                    await audit.require(change(number))
        await audit.require(change(4))
    report = verify(log)
    assert (report.problems, report.num_records, report.num_torn) == ([], 8, 1)


async def test_two_edges_may_share_a_log(broker: Broker, open_audit: Open, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with open_audit("e1", log=log) as one, open_audit("e2", log=log) as other:
        for number in range(20):
            await one.require(change(number))
            await other.require(change(number))
    report = verify(log)
    assert (report.problems, set(report.chains)) == ([], {"e1", "e2"})
    assert AuditStream(broker.edge).is_reachable


def test_a_log_that_is_no_file_has_no_tail(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert AuditLog(pipe).tail() == []
    assert AuditLog(tmp_path / "nothing").tail() == []
    with pytest.raises(FileNotFoundError):
        AuditLog(tmp_path / "nowhere" / "audit.log").check()
