"""Finding a call by its id: in this edge, else in the journals of all edges."""

import asyncio
import time

from broker.connection import Connection
from broker.errors import BrokerError
from producer.edge.calls import Call, LiveCalls, OnDisconnect, Part
from producer.edge.followed import FollowedView, Found, Unreadable, find_journal
from producer.edge.ids import part_id
from producer.edge.shapes import Header
from schemas.errors import ErrorCode, ServingError
from schemas.events import Accepted, Cancelled
from schemas.requests import Endpoint, Identity, PriorityClass

_READ_S = 10.0
_FULL_AGAIN_S = 1.0


class Finding:
    """What is found in a journal becomes one of this edge's live calls, until it is over and nobody reads it."""

    def __init__(self, connection: Connection, calls: LiveCalls) -> None:
        self._connection = connection
        self._calls = calls

    async def find(
        self, request_id: str, identity: Identity, *, even_if_full: bool = False
    ) -> Call | Unreadable | None:
        """The call; None without any record of the id. A call of this edge may be of another owner too.

        Raises ServingError (503, or 429 when this edge holds as many calls as it may).
        """
        return self._calls.get(request_id) or await self._open(request_id, identity, even_if_full)

    async def find_own(
        self, request_id: str, identity: Identity, *, even_if_full: bool = False
    ) -> Call | Unreadable | None:
        """The same, with calls of others unreadable."""
        found = await self.find(request_id, identity, even_if_full=even_if_full)
        return Unreadable(None) if isinstance(found, Call) and found.identity.owner != identity.owner else found

    async def _open(self, request_id: str, identity: Identity, even_if_full: bool) -> Call | Unreadable | None:
        try:
            found = await find_journal(self._connection, request_id)
            if not isinstance(found, Found):
                return found
            if not _is_of(found.accepted, identity.owner):
                return Unreadable(None)
            if self._calls.is_full and not even_if_full:
                raise _full()
            call = await self._follow(request_id, found, identity)
        except (BrokerError, TimeoutError) as error:
            raise ServingError(
                ErrorCode.BROKER_UNAVAILABLE, "The journals cannot be read just now.", retryable=True, retry_after_s=2
            ) from error
        # While the journal was read somebody may have opened the same one, or dropped it.
        known = self._calls.get(request_id) or _lost(call)
        if known is not None:
            call.close()
            return known
        self._calls.add(call)
        return call

    async def _follow(self, request_id: str, found: Found, identity: Identity) -> Call:
        ids = [part_id(request_id, index) for index in range(int(found.accepted.options.get("parts", 1)))]
        views = [FollowedView(self._connection, found.edge, each, found.first_seq) for each in ids]
        try:
            async with asyncio.timeout(_READ_S):
                for view in views:
                    await view.start()
        except BaseException:
            for view in views:
                view.close()
            raise
        parts = [Part(each, found.edge, view) for each, view in zip(ids, views, strict=True)]
        return _restore(request_id, found.accepted, parts, identity)


def _full() -> ServingError:
    return ServingError(
        ErrorCode.QUEUE_FULL,
        "This server holds as many calls as it may.",
        retryable=True,
        retry_after_s=_FULL_AGAIN_S,
    )


def no_such_request() -> ServingError:
    """The same for ids that never were and for those of others."""
    return ServingError(ErrorCode.REQUEST_NOT_FOUND, "There is no such request of yours.")


def _is_of(accepted: Accepted, owner: str) -> bool:
    """Whether this is the head of a whole call of that owner, not of a further part of one."""
    return accepted.owner == owner and accepted.options.get("part", 0) == 0


def _lost(call: Call) -> Unreadable | None:
    """Whether the journal's head, the oldest of its records, went while it was being read."""
    fold = call.parts[0].view.fold
    if fold.accepted is not None:
        return None
    return Unreadable(fold.terminal.reason if isinstance(fold.terminal, Cancelled) else None)


def _restore(request_id: str, accepted: Accepted, parts: list[Part], identity: Identity) -> Call:
    options, now = accepted.options, time.monotonic()
    left_s = options.get("deadline_ms", 0) / 1000 - time.time()
    header = Header(
        Endpoint(accepted.endpoint),
        request_id,
        accepted.created,
        accepted.model,
        str(options.get("service_tier", "default")),
        None,
    )
    call = Call(
        header=header,
        identity=identity,
        priority=PriorityClass(options.get("priority", PriorityClass.NORMAL)),
        parts=parts,
        include_usage=bool(options.get("include_usage")),
        accepted_at=now - max(0.0, time.time() - accepted.created),
        deadline_at=now + max(left_s, 0.0),
        # What it asked for concerned its own connection.
        on_disconnect=OnDisconnect.CONTINUE,
        body_hash=accepted.body_hash,
        idempotency_key=accepted.idempotency_key,
        is_followed=True,
        is_journaled=options.get("journal") != "off",
    )
    call.published.set()
    return call
