"""A deployment without containers, started as its README says; an edge and a worker are killed, and all is answered."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import shell_commands
from tests.ops.deploy.commands import DEPLOY, ROOT
from tests.support.counts import full_or
from tests.support.ports import free_ports

pytestmark = [pytest.mark.nats, pytest.mark.timeout(300)]

NUM_SERVERS = full_or(3, reduced=1)
NUM_CALLS = 8
# So many tokens at 50 a second: time enough to be killed in the middle.
PROMPT = "every request that was accepted is answered, whatever ends meanwhile: " * 2


class Local:
    """What start.sh has started, seen through the files that its README names."""

    def __init__(self, folder: Path, edge_ports: list[int]) -> None:
        self.folder = folder
        self.urls = [f"http://127.0.0.1:{port}" for port in edge_ports]

    @property
    def keys(self) -> list[str]:
        found = re.search(r"INFERFLUX_API_KEYS=(\w+):generate\+read,(\w+):read\+admin", self._secrets())
        assert found is not None
        return [found[1], found[2]]

    def _secrets(self) -> str:
        return (self.folder / "secrets.env").read_text()

    def kill(self, name: str) -> None:
        os.kill(int((self.folder / "run" / f"{name}.pid").read_text()), signal.SIGKILL)

    def call(self, edge: int, path: str, body: Any = None, *, key: int = 0, name: str | None = None) -> Any:
        headers = {"authorization": f"Bearer {self.keys[key]}", "content-type": "application/json"}
        if name is not None:
            headers["idempotency-key"] = name
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.urls[edge] + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def ask(self, edge: int, prompt: str, name: str) -> str:
        """Ask an edge; the other one when it is gone or cannot just now, as any client with a key would."""
        for attempt in range(600):
            try:
                body = {"prompt": prompt, "max_tokens": 1000}
                return str(self.call((edge + attempt) % 2, "/v1/completions", body, name=name)["choices"][0]["text"])
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError("no edge answered")

    def num_running(self) -> int:
        (hint,) = self.call(1, "/v1/admin/autoscale", key=1)["data"]
        return int(hint["inputs"]["queue"]["normal"]["running"])

    def inferctl(self, *arguments: str) -> str:
        """What an administrator reads at the second edge."""
        command = [sys.executable, "-m", "ops.cli.inferctl", *arguments, "--host", self.urls[1]]
        environ = os.environ | {"INFERCTL_API_KEY": self.keys[1]}
        return subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout


@contextmanager
def started(folder: Path) -> Iterator[Local]:
    """The start command of the README, with its variables set to what is free here."""
    readme = DEPLOY / "local" / "README.md"
    command = next(line for line in shell_commands(readme) if "start.sh" in line)
    ports = [str(port) for port in free_ports(3 * NUM_SERVERS + 2)]
    edge_ports, rest = ports[:2], ports[2:]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERFLUX_")}
    settings = {
        "LOCAL_DIR": str(folder),
        "LOCAL_BIN": str(Path(sys.executable).parent),
        "LOCAL_EDGE_PORTS": " ".join(edge_ports),
        "LOCAL_NATS_PORTS": " ".join(rest[::3]),
        "LOCAL_CLUSTER_PORTS": " ".join(rest[1::3]),
        "LOCAL_MONITOR_PORTS": " ".join(rest[2::3]),
    }
    with (folder.parent / "start.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=ROOT, env=clean | settings, stdout=log, stderr=log
        )
    try:
        until_ready(process, folder)
        yield Local(folder, [int(port) for port in edge_ports])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def until_ready(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + 240
    while not (folder / "run" / "ready").exists():
        log = (folder.parent / "start.log").read_text()
        assert process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.05)


def test_two_edges_and_three_workers_answer_all_when_one_of_each_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    with started(folder) as local:
        for edge in (0, 1):
            assert local.ask(edge, "hello", f"hello-{edge}") == "hello"
        (hint,) = json.loads(local.inferctl("admin", "autoscale", "--model", "echo", "--json"))["data"]
        assert (hint["model"], hint["current"], hint["inputs"]["slots_per_worker"]) == ("echo", 3, 8)
        header, row = local.inferctl("admin", "autoscale").splitlines()
        assert header.split()[:3] == ["model", "desired", "current"]
        assert row.split()[:3] == ["echo", str(hint["desired"]), "3"]
        answers: dict[int, str] = {}

        def ask(number: int) -> None:
            answers[number] = local.ask(number % 2, f"{number} {PROMPT}", f"call-{number}")

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(NUM_CALLS)]
        for thread in threads:
            thread.start()
        while not answers and local.num_running() == 0:
            time.sleep(0.05)
        local.kill("worker-1")
        local.kill("edge-1")
        for thread in threads:
            thread.join()
        assert answers == {number: f"{number} {PROMPT}" for number in range(NUM_CALLS)}
        assert local.ask(1, "still here", "later") == "still here"
        secrets = [*local.keys, *(line.split("=", 1)[1] for line in local._secrets().splitlines())]
    assert not [path for path in folder.glob("*.log") for secret in secrets if secret in path.read_text()]
    assert (folder / "secrets.env").stat().st_mode & 0o077 == 0
    for path in (folder / "run").glob("*.pid"):
        assert not Path(f"/proc/{path.read_text().strip()}").exists(), path.name
