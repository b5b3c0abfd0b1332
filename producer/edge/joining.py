"""Calls that exist already: found by an Idempotency-Key to be joined, or by their id to be cancelled."""

import time

from broker.connection import Connection
from broker.errors import BrokerError
from producer.edge.calls import Call, LiveCalls, OnDisconnect, Part, Superseded
from producer.edge.followed import FollowedView, Found, find_journal
from producer.edge.ids import derive_request_id, part_id
from producer.edge.lifecycle import Lifecycle
from producer.edge.shapes import Header
from schemas.errors import ErrorCode, ServingError
from schemas.events import Accepted, Cancelled, Failed
from schemas.requests import Endpoint, Identity, PriorityClass

_MAX_GENERATIONS = 32
_FULL_AGAIN_S = 1.0


class Joining:
    """Finds calls in this edge, else in the journals of all edges."""

    def __init__(self, connection: Connection, edge_id: str, calls: LiveCalls, lifecycle: Lifecycle) -> None:
        self._connection = connection
        self._edge_id = edge_id
        self._calls = calls
        self._lifecycle = lifecycle

    async def join(self, identity: Identity, idempotency_key: str, body_hash: str) -> Call | str:
        """The call under this key, the caller attached as a reader; or the id for a new one when there is none.

        What was cancelled, or failed so that another try can help, is not joined but done again under the next id.
        Raises ServingError: 422 when the body was another one, or what the call's submission failed with; Superseded
        when the answer has changed meanwhile.
        """
        for generation in range(_MAX_GENERATIONS):
            request_id = derive_request_id(identity.owner, idempotency_key, generation)
            found = self._calls.get(request_id) or await self._open(request_id, identity)
            if found is None:
                return request_id
            if not isinstance(found, Call):
                continue
            if (joined := await self._attach(found, body_hash)) is not None:
                return joined
        raise ServingError(ErrorCode.JOURNAL_EXPIRED, "This Idempotency-Key was used up.", param="Idempotency-Key")

    async def cancel(self, request_id: str, identity: Identity) -> bool:
        """Cancel the owner's request wherever it is served; False when it has ended already.

        Raises ServingError (404) when there is no such request of this owner.
        """
        call = self._calls.get(request_id) or await self._open(request_id, identity, even_if_full=True)
        if not isinstance(call, Call) or call.identity.owner != identity.owner:
            raise ServingError(ErrorCode.REQUEST_NOT_FOUND, "There is no such request of yours.")
        was_open = not call.is_over
        if was_open:
            self._lifecycle.cancel(call, "asked")
        self._lifecycle.settle(call)
        return was_open

    async def is_first(self, request_id: str) -> bool:
        """Whether no other edge accepted this id before us. Raises BrokerUnavailable."""
        found = await find_journal(self._connection, request_id)
        return found is None or found.edge == self._edge_id

    async def _attach(self, call: Call, body_hash: str) -> Call | None:
        self._lifecycle.attach(call)
        await call.published.wait()
        if call.retired:
            raise call.failure or Superseded
        if _is_spent(call):
            self._lifecycle.detach(call, left=False)
            return None
        if call.body_hash != body_hash:
            self._lifecycle.detach(call, left=False)
            raise ServingError(
                ErrorCode.IDEMPOTENCY_MISMATCH,
                "This Idempotency-Key was used with another body.",
                param="Idempotency-Key",
            )
        return call

    async def _open(self, request_id: str, identity: Identity, *, even_if_full: bool = False) -> Call | Found | None:
        """The call read from its journal; what is left when that was dropped; None when the id was never used.

        Raises ServingError (503, or 429 when this edge holds as many calls as it may).
        """
        try:
            found = await find_journal(self._connection, request_id)
            if found is None or not _is_of(found.accepted, identity.owner):
                return found
            assert found.accepted is not None
            if self._calls.is_full and not even_if_full:
                raise ServingError(
                    ErrorCode.QUEUE_FULL,
                    "This server holds as many calls as it may.",
                    retryable=True,
                    retry_after_s=_FULL_AGAIN_S,
                )
            call = await self._follow(request_id, found, found.accepted, identity)
        except BrokerError as error:
            raise ServingError(
                ErrorCode.BROKER_UNAVAILABLE, "The journals cannot be read just now.", retryable=True, retry_after_s=2
            ) from error
        # While the journal was read somebody may have opened the same one.
        known = self._calls.get(request_id)
        if known is not None:
            call.close()
            return known
        self._calls.add(call)
        return call

    async def _follow(self, request_id: str, found: Found, accepted: Accepted, identity: Identity) -> Call:
        parts = []
        for index in range(int(accepted.options.get("parts", 1))):
            each = part_id(request_id, index)
            view = FollowedView(self._connection, found.edge, each, found.first_seq)
            await view.start()
            parts.append(Part(each, found.edge, view))
        return _restore(request_id, accepted, parts, identity)


def _is_of(accepted: Accepted | None, owner: str) -> bool:
    """Whether this is the head of a whole call of that owner, not of a further part of one."""
    return accepted is not None and accepted.owner == owner and accepted.options.get("part", 0) == 0


def _is_spent(call: Call) -> bool:
    terminals = [part.view.fold.terminal for part in call.parts]
    return any(isinstance(end, Cancelled) or (isinstance(end, Failed) and end.retryable) for end in terminals)


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
        # Whoever started it decides; a reader from elsewhere only reads.
        on_disconnect=OnDisconnect.CONTINUE,
        body_hash=accepted.body_hash,
        idempotency_key=accepted.idempotency_key,
        is_followed=True,
    )
    call.published.set()
    return call
