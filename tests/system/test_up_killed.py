"""`up` is killed: its children end with it, and the next one starts on the same data directory."""

from pathlib import Path

from tests.support.counts import full_or
from tests.system.stack import Stack, alive, fetch, until

KILLS = full_or(10, reduced=3)


def test_no_child_survives_and_the_next_up_starts(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", "--backend", "echo")
    try:
        for number in range(KILLS):
            stack.start()
            answer = fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": f"round {number}"})
            assert answer["choices"][0]["text"] == f"round {number}"
            children = stack.pids()
            stack.kill()
            until(lambda: not any(alive(pid) for pid in children), "all children have ended", 10)  # noqa: B023
    finally:
        stack.stop()


def test_killed_while_starting(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", "--backend", "echo")
    try:
        stack.launch()
        until(lambda: (stack.data_dir / "nats" / "server.conf").exists(), "nats-server is about to start")
        stack.kill()
        stack.start()
        assert fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "x"})["choices"][0]["text"] == "x"
    finally:
        assert stack.stop() == 0
