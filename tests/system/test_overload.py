"""Three times what the workers can do: as much is done as ever, the rest is told when to come back, nothing grows."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.connection import BrokerConfig, Connection
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS, parse_journal
from schemas.codec import decode_event
from schemas.events import Cancelled, Failed, Finished
from tests.support.counts import full_or
from tests.support.open_loop import Body, Headers, Outcome, ask, open_loop
from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import KEY, Stack, echo_config, running, until

SLOTS = 8
QUEUE_MAX = 8
NUM_TOKENS = 10
RATE = 50
CAPACITY_PER_S = SLOTS * RATE / NUM_TOKENS
WARM_UP_S = full_or(10, reduced=2)
WINDOW_S = full_or(60, reduced=4)
BODY_BUFFER = 1 << 20
STREAM_BUFFER = 64 << 10
# What an edge remembers of a journal that has to be dropped in a quarter of an hour.
REMEMBERED_BYTES = 200

_numbers = itertools.count()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """One for each test: whoever was refused has booked a place in the line, for two minutes at most."""
    config = echo_config(tmp_path, f"echo:random?rate={RATE}", sequences=SLOTS, queue_max=QUEUE_MAX)
    limits = {
        "INFERFLUX_SERVER__BODY_BUFFER_BYTES": str(BODY_BUFFER),
        "INFERFLUX_SERVER__MAX_BODY_BYTES": str(BODY_BUFFER),
        "INFERFLUX_SERVER__STREAM_BUFFER_BYTES": str(STREAM_BUFFER),
    }
    with running(tmp_path / "data", "--config", str(config), env=limits) as started:
        yield started


def make_call(number: int) -> tuple[Body, Headers]:
    """A stream of a fixed length. With a key of its own, so that its journal stays and can be looked at afterwards."""
    body = {"prompt": f"prompt {number}", "max_tokens": NUM_TOKENS, "ignore_eos": True, "stream": True, "seed": number}
    return body, {"Idempotency-Key": f"call-{next(_numbers)}"}


@dataclass(frozen=True)
class Load:
    """What came of one window of load."""

    outcomes: list[Outcome]
    num_done: int

    @property
    def accepted(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == 200]

    @property
    def refused(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status != 200]


def run_load(stack: Stack, times: float) -> Load:
    """Open-loop load at so many times the capacity; what was done is counted once it has warmed up."""
    counts_from = time.monotonic() + WARM_UP_S
    outcomes = asyncio.run(
        open_loop(stack.port, KEY, per_s=times * CAPACITY_PER_S, seconds=WARM_UP_S + WINDOW_S, make=make_call)
    )
    is_counted = [counts_from <= outcome.ended_at < counts_from + WINDOW_S for outcome in outcomes]
    done = sum(counted and outcome.is_whole for counted, outcome in zip(is_counted, outcomes, strict=True))
    return Load(outcomes, done)


def rss(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def memory(stack: Stack) -> dict[str, int]:
    run = stack.run
    return {"edge": rss(run["edge"]["pid"]), "worker": rss(run["workers"][0]["pid"])}


def ends_by_request(stack: Stack) -> Counter[str]:
    """How many terminal events the broker holds of each request."""

    async def count() -> Counter[str]:
        credentials = stack.data_dir / "nats" / "creds"
        config = BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR_FULL, "test", credentials)
        connection = await Connection.open(config)
        try:
            records = await read_records(connection, STREAM_TOKENS, "inferflux.tok.>", is_complete=lambda _: True)
        finally:
            await connection.close()
        ends = (record for record in records if isinstance(decode_event(record.payload), Finished | Failed | Cancelled))
        return Counter(parse_journal(record.subject).request_id for record in ends)

    return asyncio.run(count())


def check_refusal(outcome: Outcome) -> None:
    assert outcome.status in (429, 503), outcome
    assert 1 <= int(outcome.headers["retry-after"]) <= 120
    assert json.loads(outcome.text)["error"]["code"] in ("queue_full", "broker_unavailable")


@pytest.mark.slow
@pytest.mark.timeout(60 + 4 * (WARM_UP_S + WINDOW_S))
def test_three_times_the_load_gets_as_much_done_and_nothing_grows(stack: Stack) -> None:
    single = run_load(stack, 1)
    before = memory(stack)
    triple = run_load(stack, 3)
    until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
    after = memory(stack)

    loads = (single, triple)
    print(f"goodput in {WINDOW_S} s: {single.num_done} at 1x, {triple.num_done} at 3x; capacity {CAPACITY_PER_S:g}/s")
    print(f"refused: {len(single.refused)} of {len(single.outcomes)}, {len(triple.refused)} of {len(triple.outcomes)}")
    for name, bytes_before in before.items():
        print(f"{name}: {bytes_before / 2**20:.1f} MiB before, {after[name] / 2**20:.1f} MiB after")

    assert abs(triple.num_done - single.num_done) <= 0.15 * single.num_done
    assert len(triple.refused) > len(triple.outcomes) / 2
    for load in loads:
        for outcome in load.refused:
            check_refusal(outcome)
        assert all(outcome.is_whole for outcome in load.accepted)

    ends = ends_by_request(stack)
    accepted = [outcome.request_id for load in loads for outcome in load.accepted]
    assert len(accepted) == len(set(accepted))
    assert {ends[request_id] for request_id in accepted} == {1}

    streams = (SLOTS + QUEUE_MAX) * STREAM_BUFFER
    assert after["edge"] <= before["edge"] + BODY_BUFFER + streams + len(triple.accepted) * REMEMBERED_BYTES
    assert after["worker"] <= before["worker"] + streams


@pytest.mark.slow
def test_clients_who_come_back_when_told_mostly_get_in(stack: Stack) -> None:
    returns: Counter[bool] = Counter()

    async def insist(number: int) -> None:
        body, headers = make_call(number)
        body["max_tokens"] = 6 * NUM_TOKENS  # longer than all of them need to arrive
        outcome = await ask(stack.port, KEY, body, **headers)
        while outcome.status == 429:
            await asyncio.sleep(int(outcome.headers["retry-after"]))
            outcome = await ask(stack.port, KEY, body, **headers)
            returns[outcome.status == 200] += 1
        assert outcome.is_whole

    async def all_at_once() -> None:
        await asyncio.gather(*(insist(number) for number in range(full_or(120, reduced=40))))

    asyncio.run(all_at_once())
    print(f"came back and got in: {returns[True]}, and did not: {returns[False]}")
    assert returns[True] >= 20
    assert returns[True] > 2 * returns[False]
