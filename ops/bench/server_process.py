"""A server under test: one process, its output in a file, ended in any case."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from ops.bench.errors import ArmFailed
from ops.supervisor.parent import die_with_parent

HOST = "127.0.0.1"
START_LIMIT_S = 180.0
# Longer than the drain of `inferflux up`, which kills what does not end in time.
STOP_LIMIT_S = 90.0
POLL_EVERY_S = 0.05
LAST_LINES = 5


class ServerProcess:
    """A running process. Its output goes to a file, which costs the load generator nothing."""

    def __init__(self, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self._process = process
        self._log_path = log_path

    @property
    def pid(self) -> int:
        return self._process.pid

    def failure(self) -> str:
        """How it ended and its last words, in one line."""
        code = self._process.returncode
        if code is None:
            ending = "it still runs"
        else:
            ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lines = self._log_path.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        return f"{ending}; its last words: {' | '.join(line.strip() for line in lines)}"

    async def has_ended(self, within_s: float = 1.0) -> bool:
        """Whether it ended, or does so right now: a connection breaks a little before its process is gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._process.wait()
        return self._process.returncode is not None

    async def wait_until(self, probe: Callable[[], Awaitable[bool]], limit_s: float = START_LIMIT_S) -> None:
        """Ask until the answer is yes. Raises ArmFailed when the process ends before, or it takes too long."""
        try:
            async with asyncio.timeout(limit_s):
                while not await probe():
                    if self._process.returncode is not None:
                        raise ArmFailed(f"it ended before it was ready ({self.failure()})")
                    await asyncio.sleep(POLL_EVERY_S)
        except TimeoutError:
            raise ArmFailed(f"it was not ready within {limit_s:.0f} s ({self.failure()})") from None

    async def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """SIGTERM, and SIGKILL when that does not end it in time."""
        for number, patience_s in ((signal.SIGTERM, limit_s), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._process.wait()
                return


@asynccontextmanager
async def server_process(
    command: Sequence[str], log_path: Path, environment: Mapping[str, str]
) -> AsyncIterator[ServerProcess]:
    """Run a command; it does not outlive the block, nor this process. Raises ArmFailed when it cannot be run."""
    with log_path.open("wb") as log:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us; we end it
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        except OSError as error:
            raise ArmFailed(f"{command[0]} cannot be run: {error.strerror}") from None
    server = ServerProcess(process, log_path)
    try:
        yield server
    finally:
        await _to_its_end(server.stop())


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that a Ctrl-C in the middle of it must not cut short; a second one does."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def answers_ok(url: str) -> bool:
    """Whether a GET gives 200; a server that does not listen yet gives nothing."""
    async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            return (await client.get(url)).status_code == 200
        except httpx2.TransportError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
