"""Resources, disk and certificates: each seen failing, and passing."""

import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ops.doctor import disk, processor, resources
from ops.doctor.certificates import check_certificates
from ops.doctor.check import Check
from ops.doctor.device import check_device
from ops.serving.machine import Machine
from ops.serving.plan import plan_models
from ops.settings.loader import load
from ops.settings.settings import Settings
from tests.ops.serving.machines import machine as made_up_machine
from tests.support.certificates import Authority
from tests.support.gguf import written
from workers.runners.devices import Device
from workers.runners.machine import Processor


def check_named(name: str, checks: list[Check]) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.fixture
def serving(tmp_path: Path) -> Settings:
    return load({"INFERFLUX_MODELS": f"id=a,path={written(tmp_path)}"}, {"--data-dir": str(tmp_path)})


def checks_of(settings: Settings, machine: Machine | None = None) -> list[Check]:
    machine = machine or made_up_machine()
    return resources.check_resources(settings, machine, plan_models(settings, machine))


def test_open_files(monkeypatch: pytest.MonkeyPatch, serving: Settings) -> None:
    for hard, is_ok in ((1024, False), (1 << 20, True), (resource.RLIM_INFINITY, True)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (256, hard))
        check = check_named("open files", checks_of(serving))
        assert (check.is_ok, check.is_needed) == (is_ok, is_ok)
    assert "4224" in check_failing(monkeypatch, serving).fix


def check_failing(monkeypatch: pytest.MonkeyPatch, serving: Settings) -> Check:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    return check_named("open files", checks_of(serving))


def test_weights_that_fit_into_memory_and_some_that_do_not(monkeypatch: pytest.MonkeyPatch, serving: Settings) -> None:
    assert check_named("memory", checks_of(serving)).is_ok
    monkeypatch.setattr(resources, "available_bytes", lambda: 1)
    short = check_named("memory", checks_of(serving))
    assert not short.is_ok and short.is_needed and short.fix
    machine = made_up_machine()
    on_gpu = Machine(Device.CUDA, machine.backends)
    assert "memory" not in {check.name for check in checks_of(serving, on_gpu)}


def test_a_model_file_that_cannot_be_read_to_its_end(monkeypatch: pytest.MonkeyPatch, serving: Settings) -> None:
    assert check_named("model files", checks_of(serving)).is_ok
    machine = made_up_machine()
    plan = plan_models(serving, machine)
    Path(plan[0].source.location).write_bytes(b"")
    broken = check_named("model files", resources.check_resources(serving, machine, plan))
    assert not broken.is_ok and broken.is_needed and plan[0].source.location in broken.detail


def test_the_speed_of_a_disk(tmp_path: Path) -> None:
    now = [0.0]

    def clock_with(step_s: float) -> float:
        now[0] += step_s
        return now[0]

    quick = check_named("disk speed", disk.check_disk(tmp_path, lambda: clock_with(0.001)))
    slow = check_named("disk speed", disk.check_disk(tmp_path, lambda: clock_with(0.2)))
    assert (quick.is_ok, slow.is_ok, slow.is_needed) == (True, False, False)
    assert "200.0 ms" in slow.detail
    assert not list(tmp_path.iterdir())
    assert [check.name for check in disk.check_disk(tmp_path / "absent")] == ["disk"]


def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    check = check_named("disk speed", disk.check_disk(tmp_path))
    assert not check.is_ok and check.is_needed and "No space left" in check.detail


def test_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")

    def checks_with(cert: Path, key: Path, at: datetime | None = None) -> list[Check]:
        settings = load({"INFERFLUX_SERVER__TLS__CERT": str(cert), "INFERFLUX_SERVER__TLS__KEY": str(key)}, {})
        return check_certificates(settings, *([lambda: at] if at else []))

    (good,) = checks_with(one.cert, one.key)
    assert good.is_ok and good.detail.startswith("valid until")
    for cert, key in ((one.cert, other.key), (tmp_path / "absent.pem", one.key), (one.key, one.key)):
        (bad,) = checks_with(cert, key)
        assert not bad.is_ok and bad.is_needed and bad.fix
    ends = datetime.fromisoformat(f"{good.detail.removeprefix('valid until ')}T00:00:00+00:00")
    (expired,) = checks_with(one.cert, one.key, ends + timedelta(days=1))
    (soon,) = checks_with(one.cert, one.key, ends - timedelta(days=3))
    (early,) = checks_with(one.cert, one.key, datetime(1990, 1, 1, tzinfo=UTC))
    assert "expired" in expired.detail and expired.is_needed and not expired.is_ok
    assert (soon.is_ok, soon.is_needed) == (False, False) and "in 3 days" in soon.detail
    assert not early.is_ok and "not valid before" in early.detail


def test_the_authority_of_the_broker(tmp_path: Path) -> None:
    def check_with(ca: Path) -> Check:
        settings = load({"INFERFLUX_NATS_URL": "tls://nats:4222", "INFERFLUX_NATS__TLS__CA": str(ca)}, {})
        (check,) = check_certificates(settings)
        return check

    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing of the kind")
    assert check_with(Authority(tmp_path).ca).is_ok
    assert "no certificate" in check_with(nonsense).detail
    assert "No such file" in check_with(tmp_path / "absent.pem").detail


def test_what_is_known_of_gpus(tmp_path: Path) -> None:
    for number in (0, 1):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA L4\nIRQ:   \t\t 17\n")
    version = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version:  12\n"
    (tmp_path / "version").write_text(version)
    assert check_device(Device.CUDA, tmp_path).detail == "NVIDIA GPU; NVIDIA L4; NVIDIA L4; driver 570.86.15"
    assert check_device(Device.CUDA, tmp_path / "absent").detail == "NVIDIA GPU"
    assert check_device(Device.CPU, tmp_path).detail == "CPU"


def test_what_a_processor_offers() -> None:
    told = processor._describe(Processor("Xeon", frozenset({"avx2", "amx_tile", "mmx"})), 4, 8 << 30)
    assert told == "4 of Xeon; avx2 amx_tile; 8.0 GiB of memory available"
    assert "features unknown" in processor._describe(Processor("", frozenset()), 1, 0)
