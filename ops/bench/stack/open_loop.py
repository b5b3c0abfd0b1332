"""Load that does not wait: requests come by chance at a rate, whatever becomes of the ones before."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ops.bench.errors import RequestFailed

ARRIVAL = (
    "open loop: requests come by chance (exponential gaps, the same for every arm), whatever became of those before;"
    " every request has a connection of its own, open before its clock starts"
)
_SEED = 20
_ENDS_WITHIN_S = 60.0
T = TypeVar("T")


def arrivals(per_s: float, num_requests: int) -> list[float]:
    """When each request comes, in seconds from the start; the same for the same arguments."""
    chances, at = random.Random(_SEED), 0.0
    times = []
    for _ in range(num_requests):
        at += chances.expovariate(per_s)
        times.append(at)
    return times


async def open_loop(per_s: float, num_requests: int, ask: Callable[[int], Awaitable[T]]) -> list[T]:
    """What `ask(number)` gave for each request. Raises what the first one raised, RequestFailed when they do not end;
    nothing is left running."""
    started_at = time.perf_counter()
    clients: list[asyncio.Task[T]] = []
    try:
        for number, at in enumerate(arrivals(per_s, num_requests)):
            await asyncio.sleep(max(0.0, started_at + at - time.perf_counter()))
            clients.append(asyncio.ensure_future(ask(number)))
        async with asyncio.timeout(_ENDS_WITHIN_S):
            return await asyncio.gather(*clients)
    except TimeoutError:
        raise RequestFailed(f"answers did not end within {_ENDS_WITHIN_S:.0f} s of the last request") from None
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
