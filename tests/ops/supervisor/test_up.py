"""`inferflux up` with real processes: start, restart, refuse, drain."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.system.stack import KEY, Stack, alive, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def complete(stack: Stack, prompt: str) -> str:
    answer = fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": prompt})
    return str(answer["choices"][0]["text"])


def inferflux(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("INFERFLUX_")}
    command = [sys.executable, "-m", "ops.cli.inferflux", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)


def test_ready_says_what_runs(stack: Stack) -> None:
    log = stack.log_path.read_text()
    assert f"ready    http://localhost:{stack.port}/v1" in log
    assert "echo on echo (asked for)" in log
    assert "$INFERCTL_API_KEY" in log
    run = stack.run
    assert run["edge"]["url"].endswith(f":{stack.port}")
    assert [worker["backend"] for worker in run["workers"]] == ["echo"]
    assert complete(stack, "hello") == "hello"


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--backend", "echo") as stack:
        children = stack.pids()
        assert stack.process is not None
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(60) == 0
        assert not any(alive(pid) for pid in children)
        assert not (stack.data_dir / "run.json").exists()
        assert list((stack.data_dir / "run").iterdir()) == []


def test_no_secret_is_in_the_run_file_or_the_log(stack: Stack) -> None:
    text = (stack.data_dir / "run.json").read_text() + stack.log_path.read_text()
    assert KEY not in text
    for path in (stack.data_dir / "nats" / "creds").iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert path.read_text().split("password: ")[1].strip() not in text


def test_a_second_up_on_the_same_data_is_refused_and_names_the_first(stack: Stack) -> None:
    assert stack.process is not None
    done = inferflux("up", "--backend", "echo", "--data-dir", str(stack.data_dir), "--port", "0", "--nats-port", "0")
    assert done.returncode == 3
    assert f"pid {stack.process.pid}" in done.stderr
    assert complete(stack, "still here") == "still here"


def test_a_taken_port_is_refused(stack: Stack, tmp_path: Path) -> None:
    other = ["up", "--backend", "echo", "--data-dir", str(tmp_path / "other")]
    done = inferflux(*other, "--port", str(stack.port), "--nats-port", "0")
    assert (done.returncode, f"port {stack.port}" in done.stderr) == (3, True)
    done = inferflux(*other, "--port", "0", "--nats-port", str(stack.nats_port))
    assert (done.returncode, f"port {stack.nats_port}" in done.stderr) == (3, True)


@pytest.mark.parametrize("role", ["workers", "edge", "nats"])
def test_what_dies_is_started_again(stack: Stack, role: str) -> None:
    def pid() -> int | None:
        run = stack.run
        found = run["workers"][0] if role == "workers" and run["workers"] else run[role]
        return found["pid"] if found else None

    before = pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: pid() not in (None, before), f"a new {role}")
    until(lambda: _answers(stack), "answers again")


def _answers(stack: Stack) -> bool:
    try:
        return complete(stack, "again") == "again"
    except OSError:
        return False


def test_an_edge_and_a_worker_join_by_the_data_directory(stack: Stack) -> None:
    port = free_port()
    environ = {**stack.env, "INFERFLUX_API_KEYS": "other-key"}
    common = ["--data-dir", str(stack.data_dir)]
    base = [sys.executable, "-m", "ops.cli.inferflux"]
    ready = stack.data_dir.parent / "joined.json"
    with (
        stack.log_path.open("ab") as log,
        subprocess.Popen([*base, "edge", "--port", str(port), *common], env=environ, stdout=log, stderr=log) as edge,
        subprocess.Popen(
            [*base, "worker", "--backend", "echo", "--ready-file", str(ready), *common],
            env=environ,
            stdout=log,
            stderr=log,
        ) as worker,
    ):
        try:
            until(ready.exists, "the second worker serves")
            until(lambda: _has_workers(port, 2), "the second edge sees both workers")
        finally:
            worker.terminate()
            edge.terminate()
        assert worker.wait(60) == 0
        assert edge.wait(60) == 0
    assert complete(stack, "alone again") == "alone again"


def _has_workers(port: int, number: int) -> bool:
    try:
        models = fetch(f"http://127.0.0.1:{port}/v1/models", key="other-key")
    except OSError:
        return False
    return len(models["data"][0]["backends"]) == number


def test_a_model_that_does_not_load_is_one_line_and_nothing_stays(tmp_path: Path) -> None:
    done = inferflux("up", "--model", "echo:nonsense", "--data-dir", str(tmp_path), "--port", "0", "--nats-port", "0")
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: worker-1: ")
    assert "nonsense" in last
    assert not (tmp_path / "run.json").exists()


def test_a_second_signal_forces(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", "--model", "echo:repeat?rate=1")
    try:
        stack.start()
        children = stack.pids()
        body = json.dumps({"model": "echo", "prompt": "slow " * 100, "max_tokens": 500, "stream": True})
        curl = [sys.executable, "-c", _POST, f"{stack.url}/v1/completions", body]
        with subprocess.Popen(curl, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
            assert client.stdout is not None
            assert client.stdout.readline()
            assert stack.process is not None
            stack.process.send_signal(signal.SIGTERM)
            until(lambda: "a second signal forces" in stack.log_path.read_text(), "drain has begun")
            stack.process.send_signal(signal.SIGTERM)
            assert stack.process.wait(30) == 1
            client.kill()
        assert not any(alive(pid) for pid in children)
    finally:
        stack.stop()


_POST = f"""
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], data=sys.argv[2].encode())
request.add_header("Authorization", "Bearer {KEY}")
request.add_header("Content-Type", "application/json")
with urllib.request.urlopen(request) as answer:
    for line in answer:
        if line.startswith(b"data"):
            print("token", flush=True)
"""
