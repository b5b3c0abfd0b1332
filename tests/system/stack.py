"""A whole InferFlux in real processes, started by the command a user would type, for tests that kill parts of it."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.support.ports import free_port
from tests.support.secrets import MARKER

# Every run of the suite looks for these in all logs at its end.
KEY = f"test-key-{MARKER}"
ADMIN_KEY = f"admin-key-{MARKER}"
START_LIMIT_S = 60.0
T = TypeVar("T")


def until(probe: Callable[[], T | None], what: str, limit_s: float = 30.0) -> T:
    """Ask until there is an answer that is not None or False. For states of other processes, which send no event."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = probe()
        if found is not None and found is not False:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {limit_s} s: {what}")


def fetch(url: str, *, key: str = KEY, body: dict[str, Any] | None = None, timeout_s: float = 60) -> Any:
    """GET or POST JSON and return the decoded answer; text when it is not JSON. A refusal's message has its body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data)
    request.add_header("Authorization", f"Bearer {key}")
    if data is not None:
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            raw = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            refusal = error.read()
        words = f"{error.reason}: {refusal.decode()}"
        raise urllib.error.HTTPError(url, error.code, words, error.headers, io.BytesIO(refusal)) from None
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Stack:
    """`inferflux up` on free ports with its own data directory."""

    def __init__(self, data_dir: Path, *options: str, env: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.nats_port = free_port()
        self.options = options
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("INFERFLUX_")},
            # Of two backends always the same one, and no time for finding out.
            "INFERFLUX_CALIBRATE": "off",
            "INFERFLUX_API_KEYS": f"{KEY}:generate+read,{ADMIN_KEY}:generate+read+admin",
            **(env or {}),
        }
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.key = KEY
        self._log_start = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def run(self) -> dict[str, Any]:
        """The data directory's `run.json`."""
        document: dict[str, Any] = json.loads((self.data_dir / "run.json").read_text())
        return document

    def launch(self) -> None:
        """Start without waiting."""
        command = [sys.executable, "-m", "ops.cli.inferflux", "up", "--data-dir", str(self.data_dir)]
        command += ["--port", str(self.port), "--nats-port", str(self.nats_port), *self.options]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.env)

    def start(self) -> "Stack":
        """Returns once all that it starts is ready."""
        self.launch()
        until(self._has_started, f"up is ready; its log:\n{self.log_path}", START_LIMIT_S)
        return self

    def _has_started(self) -> bool:
        if not self.is_ready():
            return False
        with self.log_path.open() as log:
            log.seek(self._log_start)
            # The beginning of the last line that `up` prints then.
            return "\ntry " in log.read()

    def is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"up ended with {self.process.returncode}:\n{self.log_path.read_text()}")
        # Without workers of its own the stack waits for those that a test starts beside it.
        path = "/livez" if self.options[-2:] == ("--workers", "0") else "/readyz"
        try:
            fetch(f"{self.url}{path}", key=self.key, timeout_s=2)
            return self.run["edge"] is not None
        except OSError:
            return False

    def metrics(self) -> dict[str, float]:
        """Samples of the edge's `/metrics`, the workers' included, by name and labels as printed."""
        samples = {}
        for line in str(fetch(f"{self.url}/metrics", key=self.key)).splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def metric_sum(self, family: str) -> float:
        """Sum of a family's samples over all labels."""
        return sum(value for name, value in self.metrics().items() if name.split("{")[0] == family)

    def pids(self) -> list[int]:
        """The children named in `run.json`."""
        run = self.run
        return [run["edge"]["pid"], run["nats"]["pid"], *(worker["pid"] for worker in run["workers"])]

    def kill(self) -> None:
        """SIGKILL `up` itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM and wait for the drain; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()


def echo_config(folder: Path, source: str, **fields: object) -> Path:
    """A configuration file with one model, the echo runner with the given source and model settings."""
    path = folder / "server.yaml"
    path.write_text(json.dumps({"models": {"echo": {"backend": "echo", "source": source, "default": True, **fields}}}))
    return path


@contextlib.contextmanager
def running(data_dir: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Stack]:
    stack = Stack(data_dir, *options, env=env)
    try:
        yield stack.start()
    finally:
        stack.stop()
