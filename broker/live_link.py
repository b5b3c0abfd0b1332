"""A worker's way to the edge that waits for a request whose tokens may enter no stream."""

import asyncio
import time

from broker.connection import Connection
from broker.errors import BrokerError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.subjects import live_subject
from schemas.codec import CodecError, decode_event, encode_event
from schemas.events import Delta, Held

# After a restart of the broker an edge may be back later than we are.
GRACE_S = 5.0
_ATTEMPT_S = 0.5
_RETRY_S = 0.01
_MAX_RETRY_S = 0.1


class EdgeGone(BrokerError):
    """The edge has ended, or knows the request no longer: nobody else may read its text."""


class LiveLink:
    """Of one run. What is sent may get lost; what `ask` sends has arrived when it returns."""

    def __init__(self, connection: Connection, edge: str, request_id: str) -> None:
        self._connection = connection
        self._subject = live_subject(edge, request_id)
        self._missing_since: float | None = None

    async def send(self, delta: Delta) -> None:
        """Best effort, without an answer."""
        await self._connection.publish(self._subject, encode_event(delta))

    async def ask(self, delta: Delta, give_up_s: float) -> Held:
        """Send until the edge answers that it follows this run; then all tokens of `delta` are known to it.

        Raises EdgeGone, or BrokerUnavailable after `give_up_s`: broker or edge stand still, or the edge has read of
        another claim or an end, which our next conditional write will meet as well.
        """
        deadline = time.monotonic() + give_up_s
        pause = _RETRY_S
        payload = encode_event(delta)
        while True:
            held = await self._ask_once(payload, deadline)
            if held is not None and held.run == delta.run:
                return held
            if time.monotonic() + pause > deadline:
                raise BrokerUnavailable(f"the edge has not confirmed tokens in {give_up_s:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_RETRY_S)

    async def _ask_once(self, payload: bytes, deadline: float) -> Held | None:
        await self._connection.wait_connected(deadline - time.monotonic())
        try:
            timeout_s = max(0.0, min(_ATTEMPT_S, deadline - time.monotonic()))
            answer = await self._connection.ask_edge(self._subject, payload, timeout_s)
        except NoResponders:
            self._note_missing()
            return None
        except BrokerTimeout:
            answer = None
        # Whoever is slow, or cannot be reached over a broken connection of ours, is not gone.
        self._missing_since = None
        return _read(answer.data) if answer is not None else None

    def _note_missing(self) -> None:
        now = time.monotonic()
        self._missing_since = self._missing_since or now
        if now - self._missing_since >= GRACE_S:
            raise EdgeGone(f"nobody has listened on {self._subject} for {GRACE_S:g} s")


def _read(payload: bytes) -> Held | None:
    if not payload:
        raise EdgeGone("the edge does not know the request")
    try:
        event = decode_event(payload)
    except CodecError:
        return None
    return event if isinstance(event, Held) else None
