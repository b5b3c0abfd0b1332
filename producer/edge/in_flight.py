"""The requests of all edges as administrators see them, and their end by an administrator."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import NamedTuple, TypeVar

from broker.connection import Connection
from broker.errors import BrokerError
from broker.in_flight import InFlight, Queued, in_flight, queued
from producer.edge.errors import BY_ADMINISTRATOR
from producer.edge.followed import Found, find_journal
from producer.edge.joining import Joining
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Identity

# So many messages are looked at for one answer, whatever the filter leaves of them.
MAX_SCANNED = 2000
MAX_LISTED = 1000
_CHUNK = 100
_SCAN_S = 20.0
Answer = TypeVar("Answer")


class Wanted(NamedTuple):
    """A filter; None and empty let everything through. `state` is queued or running."""

    model: str | None = None
    tenant: str | None = None
    state: str | None = None
    limit: int = 100

    def takes(self, found: InFlight) -> bool:
        if found.is_over:
            return False
        return self.state is None or self.state == ("queued" if found.worker is None else "running")


class Listed(NamedTuple):
    """`is_truncated`: there may be more than these."""

    requests: list[InFlight]
    is_truncated: bool


class InFlightRequests:
    """Asks the broker anew each time. Used by one edge, from its loop."""

    def __init__(self, connection: Connection, joining: Joining) -> None:
        self._connection = connection
        self._joining = joining

    async def find(self, wanted: Wanted) -> Listed:
        """The oldest that fit. Raises ServingError (503)."""
        return await _asked(lambda: self._find(wanted))

    async def get(self, request_id: str) -> InFlight:
        """Raises ServingError: 404 when it neither waits nor runs, 503."""
        return await _asked(lambda: self._get(request_id))

    async def cancel(self, request_id: str) -> bool:
        """End a request, with all parts of its call, whosever it is; False when it had its end before.

        Raises ServingError: 404 when there is no such request, 503 when it cannot be recorded.
        """
        owner = await _asked(lambda: self._owner(request_id))
        return await self._joining.cancel(request_id, Identity(owner), reason=BY_ADMINISTRATOR)

    async def require(self, request_id: str) -> str:
        """The id of the whole call that a request is of. Raises ServingError (404, 503)."""
        call_id = request_id.partition("-")[0]
        await _asked(lambda: self._owner(call_id))
        return call_id

    async def _find(self, wanted: Wanted) -> Listed:
        found: list[InFlight] = []
        give_up_at = time.monotonic() + _SCAN_S
        num_scanned = 0
        async for chunk in _chunks(queued(self._connection, wanted.model)):
            num_scanned += len(chunk)
            fitting = [each for each in chunk if wanted.tenant in (None, each.tenant)]
            found += filter(wanted.takes, await in_flight(self._connection, fitting) if fitting else [])
            if len(found) > wanted.limit or num_scanned >= MAX_SCANNED or time.monotonic() > give_up_at:
                return Listed(found[: wanted.limit], True)
        return Listed(found, False)

    async def _get(self, request_id: str) -> InFlight:
        found = await find_journal(self._connection, request_id)
        if not isinstance(found, Found):
            raise _unknown()
        async for each in queued(self._connection, found.accepted.model):
            if each.request_id == request_id:
                (described,) = await in_flight(self._connection, [each])
                if not described.is_over:
                    return described
        raise _unknown()

    async def _owner(self, request_id: str) -> str:
        found = await find_journal(self._connection, request_id)
        if not isinstance(found, Found) or found.accepted.options.get("part", 0):
            raise _unknown()
        return found.accepted.owner


async def _chunks(requests: AsyncIterator[Queued]) -> AsyncIterator[Collection[Queued]]:
    chunk: list[Queued] = []
    async for each in requests:
        chunk.append(each)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _asked(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    try:
        async with asyncio.timeout(2 * _SCAN_S):
            return await ask()
    except (BrokerError, TimeoutError) as error:
        raise ServingError(
            ErrorCode.BROKER_UNAVAILABLE, "The queue cannot be read just now.", retryable=True, retry_after_s=2
        ) from error


def _unknown() -> ServingError:
    return ServingError(ErrorCode.REQUEST_NOT_FOUND, "No request of that id waits or runs.")
