"""Reading a call again, from any edge: its events go on where a connection broke."""

from producer.edge.calls import Call
from producer.edge.finding import Finding, no_such_request
from producer.edge.followed import Unreadable
from producer.edge.gone import expired, not_journaled, why_gone
from producer.edge.ids import is_own
from producer.edge.lifecycle import Lifecycle
from schemas.errors import ServingError
from schemas.requests import Identity


class Resuming:
    """`resume_window_s`: how long after its end a call can be read whose end was not delivered."""

    def __init__(self, finding: Finding, lifecycle: Lifecycle, resume_window_s: float) -> None:
        self._finding = finding
        self._lifecycle = lifecycle
        self._resume_window_s = resume_window_s

    async def attach(self, request_id: str, identity: Identity) -> Call:
        """The owner's call, the caller attached as a reader.

        Raises ServingError: 404 when there is no such request of this owner, 410 when there was one, 503.
        """
        while True:
            found = await self._finding.find_own(request_id, identity)
            if not isinstance(found, Call):
                raise _missing(request_id, identity, found)
            if not found.is_readable:
                raise not_journaled()
            self._lifecycle.attach(found)
            try:
                await self._check(found)
            except BaseException:
                self._lifecycle.detach(found, left=False)
                raise
            if not found.retired:
                return found
            # Another edge accepted the same idempotency key a moment earlier: its call is the one.
            self._lifecycle.detach(found, left=False)

    async def _check(self, call: Call) -> None:
        await call.published.wait()
        if call.retired and call.failure is not None:
            raise call.failure
        if (reason := why_gone(call, self._resume_window_s)) is not None:
            raise expired(reason)


def _missing(request_id: str, identity: Identity, found: Unreadable | None) -> ServingError:
    """A mark without a text belongs to nobody, but the id itself tells its owner."""
    if not is_own(request_id, identity.owner):
        return no_such_request()
    return expired(found.reason if found is not None else None)
