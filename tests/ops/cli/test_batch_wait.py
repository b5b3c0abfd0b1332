"""Waiting for a batch: Ctrl-C ends the waiting and nothing else; a line that fails shows in the exit code."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.cli.inferctl import Inferctl, users_environ
from tests.system.stack import Stack, fetch, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def lines(path: Path, *bodies: dict[str, object]) -> str:
    calls = [
        {"custom_id": f"n{n}", "method": "POST", "url": "/v1/completions", "body": body}
        for n, body in enumerate(bodies)
    ]
    path.write_text("\n".join(map(json.dumps, calls)))
    return str(path)


def take_interrupts() -> None:
    """As a terminal's child does; one of a shell in the background would ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_the_batch_running(stack: Stack, tmp_path: Path) -> None:
    path = lines(tmp_path / "lines.jsonl", {"model": "slow", "prompt": "x" * 1000})
    command = [sys.executable, "-m", "ops.cli.inferctl", "batch", "submit", path, "--wait"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=users_environ(tmp_path, stack),
        preexec_fn=take_interrupts,
    ) as waiting:
        assert waiting.stderr is not None
        batch_id = waiting.stderr.readline().strip()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert f"inferctl batch status {batch_id} --follow" in said
    shown = fetch(f"{stack.url}/v1/batches/{batch_id}")
    assert shown["status"] in ("validating", "in_progress")
    fetch(f"{stack.url}/v1/batches/{batch_id}/cancel", body={})
    until(lambda: fetch(f"{stack.url}/v1/batches/{batch_id}")["status"] != "validating", "its lines are queued")


def test_a_line_that_fails_shows_in_the_exit_code(run: Inferctl, tmp_path: Path) -> None:
    path = lines(
        tmp_path / "lines.jsonl", {"model": "echo", "prompt": "x"}, {"model": "echo", "prompt": "x", "top_p": 7}
    )
    done = run("batch", "submit", path, "--wait", "--json")
    assert done.returncode == 1, done
    batch = done.json()
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 2, "completed": 1, "failed": 1})
    failed = run("batch", "results", batch["id"], "--errors")
    assert [each["custom_id"] for each in failed.json_lines()] == ["n1"]
    followed = run("batch", "status", batch["id"], "--follow")
    assert followed.returncode == 1


def test_a_file_that_is_no_good_is_told_line_by_line(run: Inferctl, tmp_path: Path) -> None:
    path = lines(tmp_path / "lines.jsonl", {"model": "echo"}, {"model": "absent"}, {})
    done = run("batch", "submit", path)
    assert done.returncode == 1 and done.stdout == ""
    told = done.stderr.splitlines()
    assert told[0].startswith("line 2: The model 'absent' does not exist") and told[1].startswith("line 3: ")
    assert run("batch", "submit", str(tmp_path / "absent")).returncode == 1
