"""The load: so many clients, each of which asks again as soon as it was answered."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ops.bench.answer import Sample
from ops.bench.connection import Target, ask, completion_request
from ops.bench.plan import Load

ARRIVAL = (
    "closed loop: all c clients send their first request at the same moment (synchronised start), each sends its next"
    " one when the answer before it has ended; every request has a connection of its own, open before its clock starts"
)


@dataclass(frozen=True, slots=True)
class LoopResult:
    """What came of one load. `wall_s` runs from the first request to the end of the last answer; `generator_cpu_s` is
    the processor time this process took meanwhile."""

    load: Load
    samples: tuple[Sample, ...]
    wall_s: float
    generator_cpu_s: float


async def closed_loop(target: Target, prompts: Iterator[str], load: Load) -> LoopResult:
    """Run one load to its end. Raises RequestFailed with the first failure; nothing is left open."""
    # Built beforehand, so that the generator does not compete with the server for it.
    requests = iter([completion_request(target, next(prompts), load.max_tokens) for _ in range(load.num_requests)])
    cpu_before, started_at = time.process_time(), time.perf_counter()
    clients = [asyncio.create_task(_client(target, requests)) for _ in range(load.concurrency)]
    try:
        samples = [sample for answered in await asyncio.gather(*clients) for sample in answered]
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    ended_at = max(sample.ended_at for sample in samples)
    return LoopResult(load, tuple(samples), ended_at - started_at, time.process_time() - cpu_before)


async def _client(target: Target, requests: Iterator[bytes]) -> list[Sample]:
    return [await ask(target, request) for request in requests]
