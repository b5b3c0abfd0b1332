"""The steps of all requests of a stack, as its broker tells them (`inferflux.evt.>`)."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import NamedTuple

from nats.aio.msg import Msg

from broker.subjects import EVENTS_ALL
from tests.system.broker_state import inspecting
from tests.system.stack import Stack


class Transition(NamedTuple):
    """`source` is the edge or worker that tells it."""

    request_id: str
    event: str
    source: str


@contextlib.contextmanager
def transitions_of(stack: Stack) -> Iterator[list[Transition]]:
    """A list that grows, by a thread of its own, with every step from now on."""
    told: list[Transition] = []
    listening = threading.Event()
    loop = asyncio.new_event_loop()
    leave = asyncio.Event()

    async def note(message: Msg) -> None:
        line = json.loads(message.data)
        told.append(Transition(line["request_id"], line["event"], line["source"]))

    async def listen() -> None:
        async with inspecting(stack) as connection:
            await connection.subscribe(EVENTS_ALL, note)
            await connection.flush()
            listening.set()
            await leave.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()), daemon=True)
    thread.start()
    assert listening.wait(10)
    try:
        yield told
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()
        loop.close()
