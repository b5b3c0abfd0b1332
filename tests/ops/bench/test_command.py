"""The command line: what it refuses, and a run of the echo arm in real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ops.bench.command import run

ECHO = ("--arms", "echo", "--concurrency", "2", "--shared", "0", "--requests", "2", "--max-tokens", "8")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops.bench", *arguments]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--arms", "ours,ollama"], 2, "'ollama' is not one of ours, ours-llama, ours-torch, ours-mlx, llama-server"),
        (["--concurrency", "1,x"], 2, "'1,x' is not a list of numbers above 0"),
        (["--concurrency", "0"], 2, "'0' is not a list of numbers above 0"),
        (["--shared", "0", "--max-tokens", "200", "--context", "256"], 2, "--context must be at least 360"),
        (["--context", "256"], 2, "--context must be at least 632"),
        (["--arms", "vllm"], 3, "error: arm vllm: --vllm does not name the Python"),
        (["--model", "/no/such.gguf"], 3, "error: model /no/such.gguf: No such file or directory"),
        (["--model", "echo"], 3, "one GGUF file"),
        (["--arms", "llama-server", "--llama-server", "/no/such"], 3, "error: arm llama-server:"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_line(
    arguments: list[str], code: int, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    assert run() == code
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.out == ""


@pytest.mark.nats
@pytest.mark.slow
def test_echo_arm_from_start_to_tables(tmp_path: Path) -> None:
    arguments = command(*ECHO, "--rounds", "1", "--out", str(tmp_path))
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=55)
    assert done.returncode == 0, done.stderr
    (table,) = tmp_path.glob("bench-*.md")
    assert table.read_text() == done.stdout.rstrip("\n") + "\n"
    (record,) = tmp_path.glob("bench-*.json")
    rounds = json.loads(record.read_text())["rounds"]["echo"]["c=2"]
    assert [(one["output_tokens"], one["num_short"]) for one in rounds] == [(320, 0)]


@pytest.mark.nats
@pytest.mark.slow
def test_sigterm_ends_the_servers_and_prints_what_there_is(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command(*ECHO, "--rounds", "1000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("  c=2"):
            break
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=55)
    assert process.returncode == 130
    assert "Interrupted" in stdout
    assert "| echo |" in stdout
    # Every server has its files in there, and its name on its command line.
    assert list(tmp_path.iterdir()) == []
    assert [line for line in map(command_line, psutil.process_iter()) if str(tmp_path) in line] == []


def command_line(process: psutil.Process) -> str:
    """Empty for a process that is gone by now."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
