"""Workers of a stack as something to kill: those that `up` restarts, and those that nobody looks after."""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.support.waiting import until
from tests.system.beside import Beside
from tests.system.stack import Stack, alive


class Drained(NamedTuple):
    """How a worker ended, and how long it took."""

    exit_code: int
    seconds: float


class Fleet(Protocol):
    def pids(self) -> dict[str, int]:
        """Process of each worker that serves, by worker id."""
        ...

    async def kill(self, worker_id: str) -> None:
        """SIGKILL, and return when it has ended."""
        ...

    async def restore(self) -> None:
        """Wait until as many serve as in the beginning."""
        ...


class Supervised:
    """The `size` workers of `up`; some may still be starting."""

    def __init__(self, stack: Stack, size: int) -> None:
        self._stack = stack
        self._size = size

    def pids(self) -> dict[str, int]:
        return {worker["id"]: worker["pid"] for worker in self._stack.run["workers"] if alive(worker["pid"])}

    async def kill(self, worker_id: str) -> None:
        pid = self.pids()[worker_id]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not alive(pid))

    async def restore(self) -> None:
        await until(lambda: len(self.pids()) == self._size)


class Unsupervised:
    """Workers beside a stack that has none. A dead one is missed by nobody but the edge that waits for its words."""

    def __init__(self, stack: Stack, config: Path, size: int) -> None:
        self._stack = stack
        self._config = config
        self._size = size
        self._numbers = itertools.count(1)
        self._workers: dict[str, Beside] = {}

    def __enter__(self) -> "Unsupervised":
        for _ in range(self._size):
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.stop()

    def __getitem__(self, worker_id: str) -> Beside:
        return self._workers[worker_id]

    def pids(self) -> dict[str, int]:
        return {name: worker.pid for name, worker in self._workers.items()}

    async def kill(self, worker_id: str) -> None:
        self._workers.pop(worker_id).kill()

    async def drain(self, worker_id: str) -> Drained:
        """SIGTERM, and wait until it has ended."""
        worker = self._workers.pop(worker_id)
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(worker.process.wait, 30)
        except subprocess.TimeoutExpired:
            worker.kill()
            raise AssertionError(f"{worker_id} does not end:\n{worker.log_path.read_text()}") from None
        return Drained(code, time.monotonic() - began)

    async def restore(self) -> None:
        while len(self._workers) < self._size:
            await asyncio.to_thread(self.start)

    def start(self) -> str:
        """One more; returns its id once it serves."""
        name = f"beside-{next(self._numbers)}"
        self._workers[name] = Beside(self._stack, "worker", name, "--config", str(self._config))
        return name
