"""Latency that a server adds to the first token: the same open loop through it and without it.

Through our edge there is broker and worker too; without it means the worker's engine alone. Through a proxy there is
the proxy; without it means its upstream. Both stream 16 tokens, one every 5 ms.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from ops.bench.answer import Sample
from ops.bench.arm import Server
from ops.bench.connection import ask, chat_request
from ops.bench.cpu_time import cpu_seconds
from ops.bench.our_stack import running_stack
from ops.bench.stack.engine_alone import engine_alone
from ops.bench.stack.litellm_proxy import MODEL, NAME, proxied
from ops.bench.stack.open_loop import open_loop
from ops.bench.stack.results import Overhead, Quantiles
from ops.bench.stack.sizes import OverheadSizes

OURS = "ours"
NUM_TOKENS = 16
EVERY_MS = 5.0
_SOURCE = f"echo:repeat?rate={1000 / EVERY_MS:g}"
_SEQUENCES = 64
_CONTEXT = 2048
_WARM_UP_PER_S = 20.0

Say = Callable[[str], None]
FirstToken = Callable[[int], Awaitable[float]]


def message(number: int) -> str:
    """A text of `NUM_TOKENS` bytes, another one for each number; the echo model says it again, a byte a token."""
    return f"Say it {number:09d}"


async def our_overhead(sizes: OverheadSizes, folder: Path, say: Say) -> list[Overhead]:
    """One result for each rate. Raises ArmFailed, RequestFailed."""
    model: dict[str, str | int] = {"source": _SOURCE, "backend": "echo", "sequences": _SEQUENCES, "context": _CONTEXT}
    async with running_stack(folder, model) as server, engine_alone(_SOURCE, _SEQUENCES, _CONTEXT) as engine:
        return await _each_rate(
            OURS,
            sizes,
            server,
            _through(server),
            lambda number: engine.first_token(number, message(number), NUM_TOKENS),
            say,
        )


async def litellm_overhead(binary: Path, sizes: OverheadSizes, folder: Path, say: Say) -> list[Overhead]:
    """The same for the proxy. Raises ArmFailed, RequestFailed."""
    async with proxied(binary, folder, EVERY_MS) as (proxy, upstream):
        return await _each_rate(NAME, sizes, proxy, _through(proxy), _through(upstream), say)


async def _each_rate(
    name: str, sizes: OverheadSizes, server: Server, through: FirstToken, direct: FirstToken, say: Say
) -> list[Overhead]:
    await open_loop(_WARM_UP_PER_S, sizes.num_warm_up, through)
    await open_loop(_WARM_UP_PER_S, sizes.num_warm_up, direct)
    found = []
    for per_s in sizes.rates:
        num_requests = sizes.num_requests(per_s)
        alone = Quantiles.of(await open_loop(per_s, num_requests, direct))
        before = cpu_seconds(server.processes)
        beside = Quantiles.of(await open_loop(per_s, num_requests, through))
        after = cpu_seconds(server.processes)
        cpu_s = {name: after[name] - before[name] for name in after if name in before}
        found.append(Overhead(name, per_s, num_requests, beside, alone, cpu_s))
        added = found[-1].added
        say(f"  {name} at {per_s:g}/s: {added.p50_ms:.1f} ms added to the first token, p99 {added.p99_ms:.1f} ms")
    return found


def _through(server: Server) -> FirstToken:
    async def first_token(number: int) -> float:
        sample: Sample = await ask(server.target, chat_request(server.target, message(number), NUM_TOKENS, MODEL))
        return sample.ttft_s

    return first_token
