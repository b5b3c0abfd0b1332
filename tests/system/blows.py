"""What is done to a stack under fire: its processes are killed, told to leave, or made to stand still."""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.support.waiting import until
from tests.system.beside import Beside
from tests.system.stack import Stack, alive, fetch

# Long enough for the lease of a frozen worker to run out, or short enough that it does not.
FREEZE_S = (0.5, 20.0)
_READY_S = 2.0


class Blows:
    """Deals one blow at a time; there is always an edge that is left alone, and a worker that nothing was done to.

    `start_edge` starts the edge that is beside the stack, on the same port each time. All others `up` starts again.
    """

    def __init__(
        self, stack: Stack, start_edge: Callable[[], Beside], num_workers: int, chances: random.Random
    ) -> None:
        self._stack = stack
        self._start_edge = start_edge
        self._edge = start_edge()
        self._num_workers = num_workers
        self._chances = chances
        self._frozen: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            "kill worker": lambda: self._signal_worker(signal.SIGKILL),
            "drain worker": lambda: self._signal_worker(signal.SIGTERM),
            "freeze worker": self._freeze_worker,
            "kill broker": self._kill_broker,
            "kill edge": self._kill_edge,
            "drain edge": self._drain_edge,
        }
        self.dealt: Counter[str] = Counter()

    async def strike(self) -> None:
        """One blow, if what it is meant for has got over the last one."""
        kind = self._chances.choice(list(self._kinds))
        if await self._kinds[kind]():
            self.dealt[kind] += 1

    async def relent(self) -> None:
        """Let everything come back. Raises what went wrong with that."""
        await asyncio.gather(*self._tasks)
        await until(lambda: len(self._workers()) == self._num_workers)
        await until(self._edges_are_ready)

    def close(self) -> None:
        for pid in self._frozen:
            _send(pid, signal.SIGCONT)
        self._edge.stop()

    @property
    def edge_urls(self) -> list[str]:
        return [self._stack.url, self._edge.url]

    def _workers(self) -> list[int]:
        """Those that serve, the frozen ones left out."""
        pids = [worker["pid"] for worker in self._stack.run["workers"]]
        return [pid for pid in pids if alive(pid) and pid not in self._frozen]

    async def _signal_worker(self, number: signal.Signals) -> bool:
        workers = self._workers()
        if len(workers) < 2:
            return False
        return _send(self._chances.choice(workers), number)

    async def _freeze_worker(self) -> bool:
        workers = self._workers()
        if len(workers) < 2 or self._frozen:
            return False
        pid = self._chances.choice(workers)
        if not _send(pid, signal.SIGSTOP):
            return False
        self._frozen.add(pid)
        self._later(self._thaw(pid, self._chances.uniform(*FREEZE_S)))
        return True

    async def _thaw(self, pid: int, after_s: float) -> None:
        await asyncio.sleep(after_s)
        _send(pid, signal.SIGCONT)
        self._frozen.discard(pid)

    async def _kill_broker(self) -> bool:
        pid = self._stack.run["nats"]["pid"]
        return alive(pid) and _send(pid, signal.SIGKILL)

    async def _kill_edge(self) -> bool:
        """Either one, if both are there."""
        if not await self._edges_are_ready():
            return False
        if self._chances.random() < 0.5:
            return self._signal_edge(signal.SIGKILL)
        self._later(self._replace_edge())
        return True

    async def _drain_edge(self) -> bool:
        """The one that `up` starts again; its streams may run out first."""
        return await self._edges_are_ready() and self._signal_edge(signal.SIGTERM)

    def _signal_edge(self, number: signal.Signals) -> bool:
        edge = self._stack.run["edge"]  # None while it is on its way back
        return edge is not None and _send(edge["pid"], number)

    async def _replace_edge(self) -> None:
        self._edge.kill()
        while self._edge.process.poll() is not None:
            with contextlib.suppress(AssertionError):  # it finds no broker just then
                self._edge = await asyncio.to_thread(self._start_edge)

    async def _edges_are_ready(self) -> bool:
        return await _is_ready(self._stack.url) and await _is_ready(self._edge.url)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: None if done.exception() else self._tasks.discard(task))


async def _is_ready(url: str) -> bool:
    try:
        await asyncio.to_thread(fetch, f"{url}/readyz", timeout_s=_READY_S)
    except OSError:
        return False
    return True


def _send(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
