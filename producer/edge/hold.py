"""Holding the status line back until it is known what it has to say."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from producer.edge.calls import Call
from producer.edge.changes import Changes
from producer.edge.departure import Departure
from producer.edge.services import Services

# How long to trust that the next record wakes us.
_LOOK_S = 1.0
_NO_TOKEN = 2**62


class Hold(Enum):
    """What ended the wait for the status."""

    READY = auto()
    LEFT = auto()
    EXPIRED = auto()
    DRAINED = auto()


async def hold_status(
    services: Services, call: Call, departure: Departure, is_ready: Callable[[], bool], timeout_s: float | None
) -> Hold:
    """Wait until `is_ready`, the client leaves, time runs out or the edge closes, whichever is first."""
    if departure.watcher.done():
        return Hold.LEFT
    if is_ready():
        services.lifecycle.note_first_token(call)
        return Hold.READY
    waiter = asyncio.create_task(_wait_for(services, call, is_ready))
    try:
        await asyncio.wait(
            {waiter, departure.watcher, services.drain.expired},
            timeout=timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        waiter.cancel()
    if waiter.done() and not waiter.cancelled():
        waiter.result()
    if departure.watcher.done():
        return Hold.LEFT
    if is_ready():
        return Hold.READY
    return Hold.DRAINED if services.drain.is_expired else Hold.EXPIRED


async def _wait_for(services: Services, call: Call, is_ready: Callable[[], bool]) -> None:
    changes = Changes(call)
    try:
        while not is_ready():
            # After the first token only the end matters, so tokens need not wake us.
            await changes.wait(0 if call.first_token_at is None else _NO_TOKEN, _LOOK_S)
            services.lifecycle.note_first_token(call)
    finally:
        changes.close()
