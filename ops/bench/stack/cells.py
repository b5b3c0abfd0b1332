"""The cells about the stack itself, one after the other. One that fails does not stop the others."""

import tempfile
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TypeVar

from ops.bench.cells import Cell
from ops.bench.errors import ArmFailed, RequestFailed
from ops.bench.stack.backlog import backlog
from ops.bench.stack.idle_streams import idle_streams
from ops.bench.stack.litellm_proxy import INSTALL, NAME, litellm_version
from ops.bench.stack.overhead import OURS, Say, litellm_overhead, our_overhead
from ops.bench.stack.results import StackResults
from ops.bench.stack.sizes import StackSizes
from ops.bench.stack.throughput import litellm_throughput, our_throughput
from ops.bench.versions import inferflux_version, nats_server_version
from workers.runners.base import RunnerError

T = TypeVar("T")
_COMPARED = (Cell.OVERHEAD, Cell.THROUGHPUT)


async def run_stack_cells(
    cells: Collection[Cell], sizes: StackSizes, litellm: Path | None, results: StackResults, say: Say
) -> None:
    """Into `results` as they come. Raises ArmUnavailable when the proxy that was named cannot be run."""
    results.versions[OURS] = f"InferFlux {inferflux_version()}, {nats_server_version()}"
    if litellm is not None:
        results.versions[NAME] = litellm_version(litellm)
    elif any(cell in _COMPARED for cell in cells):
        results.skipped[NAME] = f"--litellm does not name it; {INSTALL}"

    async def cell(name: str, run: Callable[[Path], Awaitable[T]]) -> T | None:
        say(name)
        with tempfile.TemporaryDirectory(prefix="inferflux-bench-", ignore_cleanup_errors=True) as folder:
            try:
                return await run(Path(folder))
            except (ArmFailed, RequestFailed, RunnerError) as error:
                results.failures[name] = str(error)
                say(f"  failed: {error}")
                return None

    if Cell.OVERHEAD in cells:
        results.overhead += (
            await cell(f"overhead of {OURS}", lambda folder: our_overhead(sizes.overhead, folder, say)) or []
        )
        if litellm is not None:
            results.overhead += (
                await cell(f"overhead of {NAME}", lambda folder: litellm_overhead(litellm, sizes.overhead, folder, say))
                or []
            )
    if Cell.THROUGHPUT in cells:
        ours = await cell(f"throughput of {OURS}", lambda folder: our_throughput(sizes.throughput, folder, say))
        results.throughput += [ours] if ours is not None else []
        if litellm is not None:
            theirs = await cell(
                f"throughput of {NAME}", lambda folder: litellm_throughput(litellm, sizes.throughput, folder, say)
            )
            results.throughput += [theirs] if theirs is not None else []
    if Cell.IDLE in cells:
        results.idle = await cell("idle streams", lambda folder: idle_streams(sizes.idle_streams, folder, say))
    if Cell.BACKLOG in cells:
        results.backlog = await cell("backlog", lambda folder: backlog(sizes.backlog, folder, say))
