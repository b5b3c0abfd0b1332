"""One process of ours: started in a session of its own, its output passed on line by line."""

import asyncio
import contextlib
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence

from ops.supervisor.output import Output

KEPT_LINES = 50
_MAX_LINE = 64 * 1024


class Child:
    """A running process. It does not get the terminal's Ctrl-C, so that `up` can stop things in order."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, output: Output) -> None:
        self.name = name
        self._process = process
        self._output = output
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reading = asyncio.create_task(self._pass_on(), name=f"output of {name}")

    @classmethod
    async def start(cls, name: str, command: Sequence[str], output: Output) -> "Child":
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_MAX_LINE,
        )
        return cls(name, process, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end and for all it said; returns the exit code, negative for a signal."""
        code = await self._process.wait()
        await self._reading
        return code

    def terminate(self) -> None:
        """Ask it to drain."""
        self._signal(signal.SIGTERM)

    def finish(self) -> None:
        """Ask a worker to end what it has taken, and to leave then."""
        self._signal(signal.SIGUSR1)

    def hang_up(self) -> None:
        """Ask it to read its configuration again. It has to serve already: before that it would die of it."""
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def last_words(self) -> str:
        """Why it ended, in one line: what it called an error, else the last thing it said."""
        for line in reversed(self._lines):
            if found := re.match(r"error: (.+)", line):
                return found[1]
        code = self._process.returncode
        ending = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return f"{self._lines[-1].strip()} ({ending})" if self._lines else f"ended without a word ({ending})"

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _pass_on(self) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            if line.strip():
                self._lines.append(line)
            self._output.write(self.name, line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of any length; a very long one comes in pieces."""
    rest = b""
    while chunk := await stream.read(_MAX_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def python_command(*arguments: str) -> list[str]:
    """How to run one of our own commands. `-P`: a folder of the caller's called like one of ours is not imported."""
    return [sys.executable, "-P", "-m", "ops.cli.inferflux", *arguments]
