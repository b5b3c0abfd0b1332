"""Tokens that a server streams for a second of its own processor: many streams, a model as fast as it goes."""

import asyncio
import time
from itertools import count
from pathlib import Path

from ops.bench.arm import Server
from ops.bench.connection import ask, chat_request
from ops.bench.cpu_time import cpu_seconds
from ops.bench.errors import ArmFailed
from ops.bench.our_stack import running_stack
from ops.bench.stack.litellm_proxy import MODEL, NAME, proxied
from ops.bench.stack.overhead import OURS, Say
from ops.bench.stack.results import Throughput
from ops.bench.stack.sizes import ThroughputSizes

EDGE = "edge"
_TEMPLATE_ROOM = 256


async def our_throughput(sizes: ThroughputSizes, folder: Path, say: Say) -> Throughput:
    """Raises ArmFailed, RequestFailed."""
    model: dict[str, str | int] = {
        "source": "echo",
        "backend": "echo",
        "sequences": sizes.streams,
        "context": 2 * sizes.num_tokens + _TEMPLATE_ROOM,
    }
    async with running_stack(folder, model) as server:
        return await _throughput(OURS, EDGE, server, sizes, say)


async def litellm_throughput(binary: Path, sizes: ThroughputSizes, folder: Path, say: Say) -> Throughput:
    """The same for the proxy. Raises ArmFailed, RequestFailed."""
    async with proxied(binary, folder, every_ms=0.0) as (proxy, _):
        return await _throughput(NAME, NAME, proxy, sizes, say)


async def _throughput(name: str, process: str, server: Server, sizes: ThroughputSizes, say: Say) -> Throughput:
    numbers, num_events = count(), 0

    def note() -> None:
        nonlocal num_events
        num_events += 1

    async def client(times: int) -> int:
        num_tokens = 0
        for _ in range(times):
            request = chat_request(server.target, _text(next(numbers), sizes.num_tokens), sizes.num_tokens, MODEL)
            num_tokens += (await ask(server.target, request, note)).completion_tokens
        return num_tokens

    await asyncio.gather(*(client(1) for _ in range(sizes.streams)))  # warms up
    num_events = 0
    before, started_at = cpu_seconds(server.processes), time.perf_counter()
    num_tokens = sum(await asyncio.gather(*(client(sizes.per_stream) for _ in range(sizes.streams))))
    wall_s, after = time.perf_counter() - started_at, cpu_seconds(server.processes)
    cpu_s = {each: after[each] - before[each] for each in after if each in before}
    if process not in cpu_s:
        raise ArmFailed("this system does not tell the processor time of other processes")
    # Its clock ticks a hundred times a second.
    own = max(cpu_s.pop(process), 0.01)
    found = Throughput(name, sizes.streams, num_tokens, num_events, wall_s, own, cpu_s)
    say(f"  {name}: {found.tokens_per_core_s:,.0f} tokens for a second of its processor, {found.tokens_per_s:,.0f}/s")
    return found


def _text(number: int, length: int) -> str:
    """So many bytes, other ones for each number from the beginning on."""
    words = f"{number:07d} the quick brown fox jumps over the lazy dog and says so. "
    return (words * (length // len(words) + 1))[:length]
