"""A worker believed dead wakes up while another takes over: whoever wins, all readers see one text and one end."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import pytest

from broker.claims import Claim, ClaimOutcome
from broker.connection import Connection
from broker.headers import RequestRef
from broker.journal import JournalHub, JournalView
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, journal
from broker.work_queue import WorkQueue
from schemas.codec import decode_event
from schemas.events import Accepted, Finished, FinishReason, Usage
from schemas.fold import Fold, fold
from tests.conftest import Broker
from tests.support.counts import full_or
from tests.support.leases import take_lease
from tests.support.requests import make_request

pytestmark = [pytest.mark.nats, pytest.mark.timeout(full_or(300, reduced=60))]
RACES = full_or(1300, reduced=25)
BEFORE = 5
LENGTH = 15
# Within a few round trips of the broker everything can overtake everything.
JITTER_S = 0.002


@dataclass
class Racer:
    """One run: writes its own name into each token, and where the token belongs."""

    name: str
    claim: Claim
    chances: random.Random

    async def write(self, count: int) -> None:
        for _ in range(count):
            index = len(self.claim.token_ids)
            await self.claim.delta([index], [f"{self.name}{index} "])

    async def race(self, *, takes_over: bool) -> bool:
        """Claim if it has to, write on, save now and then, and end; whether the end was accepted."""
        if takes_over:  # at any token of the other one, or behind its last
            await asyncio.sleep(self.chances.uniform(0, (LENGTH - BEFORE) * JITTER_S))
            if await self.claim.acquire() is not ClaimOutcome.CONTINUE:
                return False
        while len(self.claim.token_ids) < LENGTH:
            await self.write(1)
            await self._pause()
            if self.chances.random() < 0.2 and not await self.claim.checkpoint():
                return False
        return await self.claim.finish(FinishReason.LENGTH, Usage(1, LENGTH), [], [])

    async def _pause(self) -> None:
        await asyncio.sleep(self.chances.uniform(0, JITTER_S))


async def test_wake_up_races_have_one_winner(broker: Broker) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chances = random.Random(seed)
    hub = JournalHub(broker.edge, "e1")
    await hub.start()
    other = await broker.server.connect(Role.WORKER)
    wins = Counter([await run_race(broker, hub, other, f"r{number}", chances) for number in range(RACES)])
    print(f"wins: {dict(wins)}")
    await hub.close()
    info = await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
    assert info["state"]["messages"] == 0


async def run_race(broker: Broker, hub: JournalHub, other: Connection, request_id: str, chances: random.Random) -> str:
    view = hub.open(request_id)
    await hub.accept(Accepted(request_id, "k", "completions", "echo", 1, {}, "", None))
    await WorkQueue(broker.edge).submit(make_request(request_id))
    old = await racer(broker.worker, "old", request_id, chances)
    assert await old.claim.acquire() is ClaimOutcome.FRESH
    await old.write(BEFORE)
    assert await old.claim.checkpoint()
    await WorkQueue(broker.edge).hand_back(old.claim._lease.ack_subject)
    new = await racer(other, "new", request_id, chances)
    ends = await asyncio.gather(old.race(takes_over=False), new.race(takes_over=True))
    # The one that found the request ended settles it, as its session would.
    if ends == [True, False]:
        await new.claim._lease.ack()
    assert sum(ends) == 1, (request_id, ends)
    winner = (old, new)[ends.index(True)]
    return await check(broker, view, request_id, winner)


async def racer(connection: Connection, name: str, request_id: str, chances: random.Random) -> Racer:
    lease = await take_lease(connection)
    ref = RequestRef("e1", request_id)
    return Racer(name, Claim(connection, ref, lease, worker_id=name, fingerprint="f"), chances)


async def check(broker: Broker, view: JournalView, request_id: str, winner: Racer) -> str:
    """What was read live, what the journal says, and what the winner wrote are the same."""
    while view.fold.terminal is None:
        await view.changed(view.fold.length, None)
    stored = await read_fold(broker, request_id)
    assert stored.pieces == view.fold.pieces == winner.claim.pieces
    assert stored.terminal == view.fold.terminal
    assert isinstance(stored.terminal, Finished)
    assert stored.token_ids == list(range(LENGTH))
    names = [piece.rstrip("0123456789 ") for piece in stored.pieces]
    cut = names.index("new") if "new" in names else LENGTH
    assert names == ["old"] * cut + ["new"] * (LENGTH - cut)
    assert cut >= BEFORE
    view.close()
    return winner.name


async def read_fold(broker: Broker, request_id: str) -> Fold:
    subject = journal("e1", request_id).all
    records = await read_records(broker.edge, STREAM_TOKENS, subject, is_complete=lambda _: True)
    return fold((record.seq, decode_event(record.payload)) for record in records)
