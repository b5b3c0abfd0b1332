"""Calls that exist already: found by an Idempotency-Key to be joined, or by their id to be cancelled."""

import asyncio
import contextlib

from broker.connection import Connection
from broker.errors import BrokerError
from producer.edge.calls import Call, Superseded
from producer.edge.finding import Finding, no_such_request
from producer.edge.followed import Found, find_journal
from producer.edge.gone import has_lapsed, not_journaled
from producer.edge.ids import derive_request_id
from producer.edge.lifecycle import Lifecycle
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled, Failed, Finished
from schemas.requests import Identity

_MAX_GENERATIONS = 32
_READ_S = 1.0
_NO_TOKEN = 2**62


class Joining:
    """Joins calls, of this edge or another, and cancels them."""

    def __init__(
        self,
        connection: Connection,
        edge_id: str,
        finding: Finding,
        lifecycle: Lifecycle,
        resume_window_s: float,
    ) -> None:
        self._connection = connection
        self._edge_id = edge_id
        self._finding = finding
        self._lifecycle = lifecycle
        self._resume_window_s = resume_window_s

    async def join(self, identity: Identity, idempotency_key: str, body_hash: str) -> Call | str:
        """The call under this key, the caller attached as a reader; or the id for a new one when there is none.

        What was cancelled, failed so that another try can help, or ended too long ago, is not joined but done again
        under the next id; so is what ended elsewhere without a journal. Raises ServingError: 422 when the body was
        another one, 410 when it runs elsewhere without a journal, or what the call's submission failed with; Superseded
        when the answer has changed meanwhile.
        """
        for generation in range(_MAX_GENERATIONS):
            request_id = derive_request_id(identity.owner, idempotency_key, generation)
            found = await self._finding.find(request_id, identity)
            if found is None:
                return request_id
            if not isinstance(found, Call):
                continue
            if not found.is_readable:
                if found.is_over:
                    continue
                raise not_journaled()
            if (joined := await self._attach(found, body_hash)) is not None:
                return joined
        raise ServingError(ErrorCode.JOURNAL_EXPIRED, "This Idempotency-Key was used up.", param="Idempotency-Key")

    async def cancel(self, request_id: str, identity: Identity, *, reason: str = "asked") -> bool:
        """Cancel the owner's request wherever it is served; False when it had its end before. `reason` is for whoever
        reads it.

        Raises ServingError: 404 when there is no such request of this owner, 503 when it cannot be recorded.
        """
        call = await self._finding.find_own(request_id, identity, even_if_full=True)
        if not isinstance(call, Call):
            raise no_such_request()
        if call.is_over:
            self._lifecycle.settle(call)
            return False
        try:
            await self._lifecycle.record_cancellation(call, reason)
        except BrokerError as error:
            raise ServingError(
                ErrorCode.BROKER_UNAVAILABLE, "The cancellation was not recorded.", retryable=True, retry_after_s=2
            ) from error
        await _until_over(call)
        self._lifecycle.settle(call)
        return any(not isinstance(part.view.fold.terminal, Finished | Failed) for part in call.parts)

    async def is_first(self, request_id: str) -> bool:
        """Whether no other edge accepted this id before us. Raises BrokerUnavailable."""
        found = await find_journal(self._connection, request_id)
        return not isinstance(found, Found) or found.edge == self._edge_id

    async def _attach(self, call: Call, body_hash: str) -> Call | None:
        self._lifecycle.attach(call)
        await call.published.wait()
        if call.retired:
            raise call.failure or Superseded
        if _is_spent(call) or has_lapsed(call, self._resume_window_s):
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


async def _until_over(call: Call) -> None:
    """Wait until a recorded end has been read, here or behind the one that was faster; a second at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READ_S):
            for part in call.parts:
                while not part.is_over:
                    await part.view.changed(_NO_TOKEN, None)


def _is_spent(call: Call) -> bool:
    terminals = [part.view.fold.terminal for part in call.parts]
    return any(isinstance(end, Cancelled) or (isinstance(end, Failed) and end.retryable) for end in terminals)
