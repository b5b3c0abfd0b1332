"""Holding the status line back until it is known what it has to say."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from enum import Enum, auto

from producer.edge.calls import Call
from producer.edge.changes import Changes
from producer.edge.departure import Departure
from producer.edge.interruption import Interruption
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
        return Hold.READY
    with Interruption(departure.watcher, services.drain.expired):
        await _wait_for(services, call, is_ready, timeout_s)
    if departure.watcher.done():
        return Hold.LEFT
    if is_ready():
        return Hold.READY
    return Hold.DRAINED if services.drain.is_expired else Hold.EXPIRED


async def _wait_for(services: Services, call: Call, is_ready: Callable[[], bool], timeout_s: float | None) -> None:
    now = asyncio.get_running_loop().time
    until = None if timeout_s is None else now() + timeout_s
    with closing(Changes(call)) as changes:
        while not is_ready():
            # Not before it is known whether to go on: whoever sends the first token notes it when that is done.
            services.lifecycle.note_first_token(call)
            left_s = _LOOK_S if until is None else until - now()
            if left_s <= 0:
                return
            # After the first token only the end matters, so tokens need not wake us.
            await changes.wait(0 if call.first_token_at is None else _NO_TOKEN, min(left_s, _LOOK_S))
