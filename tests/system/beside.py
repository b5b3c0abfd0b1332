"""Further edges and workers beside a running stack, each a process of its own that a test may kill, stop or drain."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.system.stack import START_LIMIT_S, Stack, until


class Beside:
    """`inferflux edge` or `inferflux worker` on the broker of a stack. `facts` is what it said when it was ready.

    `module` stands in for the command.
    """

    def __init__(
        self,
        stack: Stack,
        command: str,
        name: str,
        *options: str,
        env: dict[str, str] | None = None,
        module: str = "ops.cli.inferflux",
    ) -> None:
        self._ready_file = stack.data_dir.parent / f"{name}.ready.json"
        self.log_path = stack.data_dir.parent / f"{name}.log"
        arguments = [command, "--id", name, "--data-dir", str(stack.data_dir), "--ready-file", str(self._ready_file)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, *options],
                stdout=log,
                stderr=log,
                env={**stack.env, **(env or {})},
            )
        self.facts: dict[str, Any] = until(self._read_facts, f"{name} is ready", START_LIMIT_S)

    def _read_facts(self) -> dict[str, Any] | None:
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}:\n{self.log_path.read_text()}")
        try:
            facts: dict[str, Any] = json.loads(self._ready_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return facts

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        """Of an edge."""
        url: str = self.facts["url"]
        return url

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM and wait for the drain; the exit code."""
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.wait()


@contextlib.contextmanager
def edge_beside(
    stack: Stack, name: str = "edge-two", *options: str, env: dict[str, str] | None = None
) -> Iterator[Beside]:
    """A second edge on a free port."""
    edge = Beside(stack, "edge", name, "--port", str(free_port()), *options, env=env)
    try:
        yield edge
    finally:
        edge.stop()


@contextlib.contextmanager
def worker_beside(stack: Stack, name: str, config: Path, *options: str) -> Iterator[Beside]:
    """A worker that nobody supervises. `config` is the stack's own file, for the same models."""
    worker = Beside(stack, "worker", name, "--config", str(config), *options)
    try:
        yield worker
    finally:
        worker.stop()
