"""Suspects, requests whose last worker ended before anything came of them, are started one at a time."""

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import NamedTuple

import pytest

from broker.claims import Claim
from broker.headers import RequestRef
from broker.journal import JournalView
from broker.lease import Lease
from broker.records import read_records
from broker.subjects import STREAM_DLQ, STREAM_TOKENS, journal
from schemas.codec import decode_event, encode_event
from schemas.events import Delta, Event, Failed, Released, Started
from schemas.requests import SamplingParams
from tests.conftest import Broker
from tests.support.leases import take_lease
from tests.workers.harness import EDGE, EdgeSide, edge_side, end_of, intake
from workers.probation import Probation
from workers.runners.base import RunnerSpec
from workers.runners.echo import EchoRunner

pytestmark = pytest.mark.nats
# A prompt of 50 tokens takes a while, compared to a claim.
SLOW_PROMPTS = "echo:repeat?prefill_rate=1000"
NUM_SUSPECTS = 5
WORKER = "w1"


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[EdgeSide]:
    async with edge_side(broker) as side:
        yield side


def prompt(number: int) -> str:
    return f"request number {number} " * 3


def fingerprint() -> str:
    return EchoRunner().open(RunnerSpec("echo", SLOW_PROMPTS)).facts.fingerprint


class Fallen:
    """Requests that dead workers held, to be delivered again together."""

    def __init__(self, edge: EdgeSide) -> None:
        self._edge = edge
        self._leases: list[Lease] = []
        self.views: list[JournalView] = []

    async def add(self, text: str, *, said: str = "", deaths: int = 1) -> str:
        """One whose workers all died with it, the first after it had said this much; returns its id."""
        request = self._edge.request(text, sampling=SamplingParams(seed=1))
        self.views.append(await self._edge.submit(request))
        worker = self._edge.broker.worker
        lease = await take_lease(worker)
        self._leases.append(lease)
        for number in range(deaths):
            ref = RequestRef(EDGE, request.request_id)
            claim = Claim(worker, ref, lease, worker_id=f"dead{number}", fingerprint=fingerprint())
            await claim.acquire()
            if said and not number:
                await claim.delta(list(said.encode()), list(said))
                assert await claim.checkpoint()
        return request.request_id

    async def give_back(self) -> None:
        for lease in self._leases:
            await lease.nak()


class Life(NamedTuple):
    """A request's journal, each event with its place in the stream."""

    events: list[tuple[int, Event]]

    def claims(self) -> list[int]:
        """Where the worker under test claimed it."""
        return [seq for seq, event in self.events if isinstance(event, Started) and event.worker == WORKER]

    def first_token(self) -> int:
        """Where it got its first token from that worker."""
        last_claim = self.claims()[-1]
        return next(seq for seq, event in self.events if seq > last_claim and isinstance(event, Delta))

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for _, event in self.events)


async def life_of(broker: Broker, request_id: str) -> Life:
    records = await read_records(
        broker.worker, STREAM_TOKENS, journal(EDGE, request_id).all, is_complete=lambda _: True
    )
    return Life([(record.seq, decode_event(record.payload)) for record in records])


def started_one_by_one(lives: list[Life]) -> bool:
    """Whether each had its first token before the next one was started for good."""
    trials = sorted((life.claims()[-1], life.first_token()) for life in lives)
    return all(first_token < claim for (_, first_token), (claim, _) in pairwise(trials))


def test_the_place_is_for_one() -> None:
    probation = Probation()
    assert probation.enter("a") and probation.enter("a")
    assert not probation.enter("b")
    probation.leave("b")
    assert probation.holds("a")
    probation.leave("a")
    assert probation.enter("b")


async def test_suspects_are_started_one_by_one_and_none_is_forgotten(broker: Broker, edge: EdgeSide) -> None:
    fallen = Fallen(edge)
    ids = [await fallen.add(prompt(number)) for number in range(NUM_SUSPECTS)]
    await fallen.give_back()
    async with intake(broker, WORKER, source=SLOW_PROMPTS, slots=NUM_SUSPECTS):
        assert [await end_of(view) for view in fallen.views] == [prompt(number) for number in range(NUM_SUSPECTS)]
        await edge.queue_is_empty()
    lives = [await life_of(broker, request_id) for request_id in ids]
    assert started_one_by_one(lives)
    # While it waits a suspect has no claim, which the death of another one could turn into a failure.
    assert [len(life.claims()) for life in lives] == [1] * NUM_SUSPECTS


async def test_a_suspect_that_looked_new_is_given_back_and_forgiven(broker: Broker, edge: EdgeSide) -> None:
    ids, views = [], []
    for number in range(NUM_SUSPECTS):  # the broker was killed after they were claimed: delivered for the first time
        request = edge.request(prompt(number), sampling=SamplingParams(seed=1))
        ids.append(request.request_id)
        views.append(await edge.submit(request))
        dead = Started(f"run{number}", "dead", "$JS.ACK.gone", fingerprint())
        await broker.worker.publish_acked(journal(EDGE, request.request_id).run, encode_event(dead))
    async with intake(broker, WORKER, source=SLOW_PROMPTS, slots=NUM_SUSPECTS):
        assert [await end_of(view) for view in views] == [prompt(number) for number in range(NUM_SUSPECTS)]
    lives = [await life_of(broker, request_id) for request_id in ids]
    assert started_one_by_one(lives)
    assert sum(life.count(Released) for life in lives) >= NUM_SUSPECTS - 1


async def test_suspects_that_wait_are_not_overtaken_for_ever(broker: Broker, edge: EdgeSide) -> None:
    fallen = Fallen(edge)
    suspects = [await fallen.add(prompt(number)) for number in range(3)]
    later, views = [], []
    for number in range(3, 30):
        request = edge.request(prompt(number), sampling=SamplingParams(seed=1))
        later.append(request.request_id)
        views.append(await edge.submit(request))
    await fallen.give_back()
    async with intake(broker, WORKER, source=SLOW_PROMPTS, slots=2):
        assert [await end_of(view) for view in fallen.views + views] == [prompt(number) for number in range(30)]
    first_tokens = [(await life_of(broker, request_id)).first_token() for request_id in suspects]
    assert max(first_tokens) < max([(await life_of(broker, request_id)).claims()[0] for request_id in later])


async def test_what_has_tokens_goes_on_beside_a_suspect(broker: Broker, edge: EdgeSide) -> None:
    fallen = Fallen(edge)
    suspect, going_on = await fallen.add("x" * 500), await fallen.add(prompt(1), said="requ")
    await fallen.give_back()
    async with intake(broker, WORKER, source=SLOW_PROMPTS):
        assert [await end_of(view) for view in fallen.views] == ["x" * 500, prompt(1)]
    assert (await life_of(broker, going_on)).claims()[0] < (await life_of(broker, suspect)).first_token()


async def test_what_failed_three_times_does_not_wait_for_the_place(broker: Broker, edge: EdgeSide) -> None:
    fallen = Fallen(edge)
    suspect, guilty = await fallen.add("x" * 500), await fallen.add("deadly", deaths=3)
    await fallen.give_back()
    async with intake(broker, WORKER, source=SLOW_PROMPTS):
        assert [await end_of(view) for view in fallen.views] == ["x" * 500, ""]
        await edge.queue_is_empty()
    end = fallen.views[1].fold.terminal
    assert isinstance(end, Failed)
    assert end.code == "poisoned"
    assert (await life_of(broker, guilty)).claims()[0] < (await life_of(broker, suspect)).first_token()
    assert (await broker.topology.api(f"STREAM.INFO.{STREAM_DLQ}"))["state"]["messages"] == 1
