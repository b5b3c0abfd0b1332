"""The claim of a request that is not journaled: its tokens go to the edge that took it, and to nobody else.

The edge is for them what the journal is for others: it confirms them once a second, and tells the next worker what it
has. The journal learns how many there are; claims, ends and leases are the same.
"""

import contextlib
import time
from typing import Any

from broker.claims import CHECKPOINT_S, END_S, MAX_DELTA_TOKENS, Claim, ClaimOutcome
from broker.connection import Connection
from broker.errors import BrokerUnavailable
from broker.lease import Lease
from broker.live_link import EdgeGone, LiveLink
from broker.records import Record
from schemas.errors import ErrorCode
from schemas.events import Advanced, Delta, Failed, Finished
from schemas.requests import GenerateRequest

# An edge that stands still holds up nothing else: the lease is renewed, and the next checkpoint tries again.
_PASS_ON_S = 1.0
# A worker that cannot learn what its predecessors generated has nothing to do for this request.
_ADOPT_S = 20.0


class LiveClaim(Claim):
    # Who and what for, without the prompt: nobody is left for whom it could be done again.
    _keeps_dead_letters_whole = False

    def __init__(self, connection: Connection, request: GenerateRequest, lease: Lease, **options: Any) -> None:
        super().__init__(connection, request, lease, **options)
        self._link = LiveLink(connection, request.edge, request.request_id)

    async def _send(self, delta: Delta) -> None:
        await self._link.send(delta)

    async def _adopt(self, records: list[Record]) -> ClaimOutcome:
        outcome = await super()._adopt(records)
        if outcome not in (ClaimOutcome.FRESH, ClaimOutcome.POISONED):
            return outcome
        try:
            await self._fetch()
        except EdgeGone as error:
            await self._end_unheard(error)
            return ClaimOutcome.SETTLED
        has_progress = len(self.token_ids) > self.fold.reached
        if not await self._tell_progress(_ADOPT_S):
            if self.has_ended:
                return ClaimOutcome.SETTLED
            raise BrokerUnavailable("another claim came first")
        if outcome is ClaimOutcome.POISONED and not has_progress:
            return outcome
        return ClaimOutcome.CONTINUE if self.token_ids else ClaimOutcome.FRESH

    async def _fetch(self) -> None:
        """Read what the edge has. Raises EdgeGone, BrokerUnavailable."""
        while True:
            held = await self._link.ask(Delta(self.run, len(self.token_ids), [], []), _ADOPT_S)
            self.token_ids += held.token_ids
            self.pieces += held.pieces
            if len(self.token_ids) >= held.length:
                break
        self.confirmed = len(self.token_ids)
        self.previous_fingerprint = held.fingerprint

    async def _checkpoint(self) -> bool:
        if not await self._tell_progress(CHECKPOINT_S):
            return False
        if self._lease.needs_renewal:
            await self._lease.renew()
        return await self._pass_on()

    async def _save_for_release(self) -> bool:
        if not await self._tell_progress(CHECKPOINT_S):
            return False
        with contextlib.suppress(BrokerUnavailable):  # what the edge does not have then is generated again
            return await self._pass_on()
        return True

    async def _store_end(self, bare: Finished) -> bool:
        return await self._pass_on_all() and await self._write(self._subjects.ev, bare, END_S)

    async def _restore_tokens(self, deadline: float) -> None:
        await self._tell_progress(deadline - time.monotonic())

    async def _tell_progress(self, give_up_s: float) -> bool:
        return await self._write(self._subjects.ev, Advanced(self.run, len(self.token_ids)), give_up_s)

    async def _pass_on(self) -> bool:
        """Have the edge confirm all tokens. False: fenced, or the edge is gone and the request has been ended.

        Raises BrokerUnavailable when the edge stands still for a second.
        """
        if self.is_fenced or self._is_settled:
            return False
        try:
            while True:
                start, end = self.confirmed, min(len(self.token_ids), self.confirmed + MAX_DELTA_TOKENS)
                delta = Delta(self.run, start, self.token_ids[start:end], self.pieces[start:end])
                await self._link.ask(delta, _PASS_ON_S)
                self.confirmed = end
                if end == len(self.token_ids):
                    return True
        except EdgeGone as error:
            await self._end_unheard(error)
            return False

    async def _pass_on_all(self) -> bool:
        """`_pass_on` at the end: while the edge stands still, keep the lease and try again. Raises after a minute."""
        deadline = time.monotonic() + END_S
        work = self._pass_on()
        while True:
            try:
                return await work
            except BrokerUnavailable:
                if time.monotonic() > deadline:
                    raise
            work = self._checkpoint()

    async def _end_unheard(self, reason: EdgeGone) -> None:
        """Nobody is left who may read the text. A call that asks for it again is served anew."""
        self.is_unheard = True
        message = f"This request was not journaled, and nobody follows it any more: {reason}"
        if await self._write(
            self._subjects.ev, Failed(self.run, ErrorCode.BROKER_UNAVAILABLE.value, message, True), CHECKPOINT_S
        ):
            await self._settle()


def claim_for(
    connection: Connection, request: GenerateRequest, lease: Lease, *, worker_id: str, fingerprint: str
) -> Claim:
    """The claim that keeps the tokens of `request` where they may be. Raises ValueError on ids that are not valid."""
    kind = Claim if request.journaled else LiveClaim
    return kind(connection, request, lease, worker_id=worker_id, fingerprint=fingerprint)
