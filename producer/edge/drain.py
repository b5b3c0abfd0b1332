"""Leaving: no longer ready, then streams run out, then those left are told."""

import asyncio

from producer.edge.calls import Call
from producer.edge.errors import Interrupted
from schemas.errors import ErrorCode, ServingError

_WHY = "This server is shutting down."


class Drain:
    """`begin` takes the edge out of service; `expire` ends what still runs. Never cancels: another edge can go on."""

    def __init__(self) -> None:
        self.is_draining = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.expired: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_expired(self) -> bool:
        return self.expired.done()

    def begin(self) -> None:
        self.is_draining = True
        if not self.begun.done():
            self.begun.set_result(None)

    def expire(self) -> None:
        self.begin()
        if not self.expired.done():
            self.expired.set_result(None)

    def error(self) -> ServingError:
        return ServingError(
            ErrorCode.BROKER_UNAVAILABLE,
            _WHY,
            retryable=True,
            retry_after_s=1,
        )

    def interruption(self, call: Call, last_event_id: str | None) -> ServingError:
        """What a reader is told whose time is up; `last_event_id` is the place it has come to."""
        if not call.is_journaled:
            return self.error()  # no other edge can go on with it
        return Interrupted(ErrorCode.BROKER_UNAVAILABLE, _WHY, call.request_id, last_event_id)
