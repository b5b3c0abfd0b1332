"""Requests that somebody stops, or whose time is over, wherever they are: their place is free within a step of the
model, their readers are told, and nothing is computed for them any more.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2
import pytest

from broker.connection import BrokerConfig, Connection
from broker.records import read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS
from schemas.codec import decode_event
from schemas.events import Cancelled, Delta, Event, Failed, Progress, Started
from schemas.fold import fold
from tests.support.counts import full_or
from tests.support.waiting import until
from tests.system.beside import Beside, edge_beside
from tests.system.broker_state import QueueState, read_queue_state
from tests.system.stack import KEY, Stack, echo_config, running
from tests.system.transitions import Transition, transitions_of

SLOTS = 4
ROUNDS = full_or(10, reduced=1)
RACES = full_or(100, reduced=8)
LONG = 1000
# Each begins otherwise, or the next would find what the last one computed.
LONG_PROMPTS = (f"{number} " + "p" * 4000 for number in itertools.count())
PROBE_TOKENS = 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Ending(NamedTuple):
    """How a call ended for its reader. `is_done`: with `[DONE]`, or a whole body."""

    status: int
    code: str | None
    num_chunks: int
    is_done: bool
    headers: httpx2.Headers


class Fleet(NamedTuple):
    """A stack whose model takes its time, with a second edge."""

    stack: Stack
    other: Beside
    told: list[Transition]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("cancelled")
    # 125 ms a step, also while a prompt is computed, of which a step takes 50 tokens.
    config = echo_config(folder, "echo:random?rate=8&prefill_rate=400", sequences=SLOTS, batch_tokens=50)
    with (
        running(folder / "data", "--config", str(config)) as stack,
        edge_beside(stack) as other,
        transitions_of(stack) as told,
    ):
        yield Fleet(stack, other, told)


class Calls:
    """Calls on a fleet, and what became of them."""

    def __init__(self, fleet: Fleet, own: httpx2.AsyncClient, other: httpx2.AsyncClient, broker: Connection) -> None:
        self.fleet = fleet
        self.own = own
        self.other = other
        self._broker = broker

    async def begin(
        self, client: httpx2.AsyncClient, *, stream: bool, prompt: str = "short", max_tokens: int = LONG, **more: Any
    ) -> tuple[str, "asyncio.Task[Ending]"]:
        """Post, and return when the edge has accepted it: its id, and its end to come. The journal is kept."""
        known = {each.request_id for each in self.fleet.told}
        body = {"prompt": prompt, "max_tokens": max_tokens, "stream": stream, "seed": 1, "ignore_eos": True, **more}
        task = asyncio.create_task(read_to_the_end(client, body))
        await until(lambda: bool(self._accepted() - known))
        (request_id,) = self._accepted() - known
        return request_id, task

    def _accepted(self) -> set[str]:
        return {each.request_id for each in self.fleet.told if each.event == "accepted"}

    async def journal(self, request_id: str) -> list[Event]:
        """All records of a request in the order of the stream."""
        subject = f"inferflux.tok.*.{request_id}.*"
        records = await read_records(self._broker, STREAM_TOKENS, subject, is_complete=lambda _: True)
        return [decode_event(record.payload) for record in records]

    async def until_there_is(self, kind: type[Event], request_id: str) -> None:
        async def is_there() -> bool:
            return any(isinstance(event, kind) for event in await self.journal(request_id))

        await until(is_there)

    async def until_queue_is(self, state: QueueState) -> None:
        async def is_so() -> bool:
            return await read_queue_state(self.fleet.stack) == state

        await until(is_so)

    async def hold_all_slots(self) -> list[tuple[str, "asyncio.Task[Ending]"]]:
        holders = [await self.begin(self.own, stream=True) for _ in range(SLOTS)]
        for request_id, _ in holders:
            await self.until_there_is(Delta, request_id)
        return holders

    async def let_go(self, holders: list[tuple[str, "asyncio.Task[Ending]"]]) -> None:
        for request_id, _ in holders:
            assert await delete(self.own, request_id)
        for _, task in holders:
            assert (await task).code == "cancelled"

    async def check_ended_at_once(self, request_id: str, by: type[Event]) -> None:
        """Nothing came after the record of the end but what the step that was running brought."""
        events = await self.journal(request_id)
        ends = [index for index, event in enumerate(events) if isinstance(event, by)]
        assert ends, events
        late = events[ends[0] + 1 :]
        assert sum(isinstance(event, Delta | Progress) for event in late) <= 1, events
        assert not any(isinstance(event, Started) for event in late), events

    async def check_nothing_is_left(self) -> None:
        """The queue is empty, all slots are free, and the model works for a new call alone."""

        await self.until_queue_is(QueueState(0, 0))
        await until(lambda: self._slots("busy") == 0 and self._slots("free") == SLOTS)
        before = self.num_tokens()
        ending = await read_to_the_end(self.own, {"prompt": "probe", "max_tokens": PROBE_TOKENS, "ignore_eos": True})
        assert ending.status == 200
        await until(lambda: self._slots("busy") == 0)
        assert self.num_tokens() - before == PROBE_TOKENS

    def num_tokens(self) -> float:
        return self.fleet.stack.metric_sum("inferflux_completion_tokens_total")

    def num_prompt_tokens(self) -> float:
        return self.fleet.stack.metric_sum("inferflux_prompt_tokens_total")

    def _slots(self, state: str) -> float:
        metrics = self.fleet.stack.metrics().items()
        return sum(value for name, value in metrics if "worker_slots{" in name and f'state="{state}"' in name)


@asynccontextmanager
async def calls_on(fleet: Fleet) -> AsyncIterator[Calls]:
    """Checks in the end that everything is as it was."""
    data_dir = fleet.stack.data_dir
    config = BrokerConfig(fleet.stack.run["nats"]["url"], Role.INSPECTOR_FULL, "test", data_dir / "nats" / "creds")
    broker = await Connection.open(config)
    try:
        async with client_of(fleet.stack.url) as own, client_of(fleet.other.url) as other:
            calls = Calls(fleet, own, other, broker)
            yield calls
            await calls.check_nothing_is_left()
    finally:
        await broker.close()


def client_of(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)


async def read_to_the_end(client: httpx2.AsyncClient, body: dict[str, Any]) -> Ending:
    # With a key of its own for each call its journal outlasts its end.
    answer = await client.post("/v1/completions", json=body, headers={"idempotency-key": secrets.token_hex(8)})
    if not answer.headers["content-type"].startswith("text/event-stream"):
        code = answer.json()["error"]["code"] if answer.status_code != 200 else None
        return Ending(answer.status_code, code, 0, answer.status_code == 200, answer.headers)
    events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    error = json.loads(events[-1]).get("error") if events[-1] != "[DONE]" else None
    return Ending(answer.status_code, error and error["code"], len(events) - 1, events[-1] == "[DONE]", answer.headers)


async def delete(client: httpx2.AsyncClient, request_id: str) -> bool:
    answer = await client.delete(f"/v1/requests/{request_id}")
    assert answer.status_code == 200, answer.text
    cancelled: bool = answer.json()["cancelled"]
    return cancelled


def check_was_told(ending: Ending, code: str, status: int, *, has_begun: bool) -> None:
    """A stream that had begun got an error event, everybody else a status, which no SDK takes for a reason to retry."""
    assert (ending.code, ending.is_done) == (code, False)
    if has_begun:
        assert ending.status == 200
        assert ending.num_chunks > 0
    else:
        assert ending.status == status
        assert ending.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("state", ["queued", "prefill", "decode"])
def test_delete_frees_the_slot_within_a_step(fleet: Fleet, state: str) -> None:
    async def stop_one(calls: Calls, *, stream: bool, by: httpx2.AsyncClient) -> None:
        prompt = next(LONG_PROMPTS) if state == "prefill" else "short"
        request_id, task = await calls.begin(calls.own, stream=stream, prompt=prompt)
        if state != "queued":
            await calls.until_there_is(Progress if state == "prefill" else Delta, request_id)
        assert await delete(by, request_id)
        check_was_told(await task, "cancelled", 500, has_begun=stream and state == "decode")
        await calls.check_ended_at_once(request_id, Cancelled)
        started = sum(isinstance(event, Started) for event in await calls.journal(request_id))
        assert started == (0 if state == "queued" else 1)

    async def stop_all() -> None:
        async with calls_on(fleet) as calls:
            holders = await calls.hold_all_slots() if state == "queued" else []
            for number in range(2 * ROUNDS):
                is_odd = bool(number % 2)
                await stop_one(calls, stream=is_odd, by=calls.own if is_odd else calls.other)
                if ROUNDS > 1:
                    await stop_one(calls, stream=is_odd, by=calls.other if is_odd else calls.own)
            await calls.let_go(holders)

    asyncio.run(stop_all())


def test_a_delete_beside_the_end_tells_what_the_reader_got(fleet: Fleet) -> None:
    generator = random.Random(3)

    async def race(calls: Calls, number: int) -> None:
        edges = (calls.own, calls.other)
        request_id, task = await calls.begin(edges[number % 2], stream=number % 3 == 0, max_tokens=4)
        enough = generator.randint(0, 4)

        async def has_enough() -> bool:
            return task.done() or fold(enumerate(await calls.journal(request_id))).length >= enough

        await until(has_enough)
        cancelled = await delete(edges[number // 2 % 2], request_id)
        ending = await task
        assert (ending.code, ending.is_done) == (("cancelled", False) if cancelled else (None, True))

    async def all_races() -> None:
        async with calls_on(fleet) as calls:
            for number in range(RACES):
                await race(calls, number)

    asyncio.run(all_races())


def test_what_expires_in_the_queue_is_never_started(fleet: Fleet) -> None:
    async def expire() -> None:
        async with calls_on(fleet) as calls:
            holders = await calls.hold_all_slots()
            before = calls.num_prompt_tokens()
            waiting = [await calls.begin(calls.own, stream=stream, timeout=1) for stream in (True, False)]
            for request_id, task in waiting:
                check_was_told(await task, "deadline_exceeded", 504, has_begun=False)
                assert any(isinstance(event, Failed) for event in await calls.journal(request_id))
                assert not any(isinstance(event, Started) for event in await calls.journal(request_id))
            await calls.until_queue_is(QueueState(SLOTS, SLOTS))
            await calls.let_go(holders)
            assert calls.num_prompt_tokens() == before

    asyncio.run(expire())


def test_what_expires_in_the_model_stops_within_a_step(fleet: Fleet) -> None:
    async def expire() -> None:
        async with calls_on(fleet) as calls:
            in_decode = await calls.begin(calls.own, stream=True, timeout=2)
            whole = await calls.begin(calls.own, stream=False, timeout=2)
            for request_id, _ in (in_decode, whole):
                await calls.until_there_is(Delta, request_id)
            in_prefill = await calls.begin(calls.own, stream=True, prompt=next(LONG_PROMPTS), timeout=1)
            check_was_told(await in_prefill[1], "deadline_exceeded", 504, has_begun=False)
            check_was_told(await in_decode[1], "deadline_exceeded", 504, has_begun=True)
            check_was_told(await whole[1], "deadline_exceeded", 504, has_begun=False)
            for request_id, _ in (in_prefill, in_decode, whole):
                await calls.check_ended_at_once(request_id, Failed)

    asyncio.run(expire())


def test_a_deadline_passes_while_the_worker_is_dead(fleet: Fleet) -> None:
    async def expire() -> None:
        async with calls_on(fleet) as calls:
            (worker,) = fleet.stack.run["workers"]
            request_id, task = await calls.begin(calls.own, stream=True, timeout=2)
            await calls.until_there_is(Delta, request_id)
            os.kill(worker["pid"], signal.SIGKILL)
            check_was_told(await task, "deadline_exceeded", 504, has_begun=True)
            await calls.until_queue_is(QueueState(0, 0))
            await until(lambda: fleet.stack.run["workers"] not in ([], [worker]))
            await calls.check_ended_at_once(request_id, Failed)

    asyncio.run(expire())


def test_a_deadline_holds_when_the_edge_is_dead(fleet: Fleet) -> None:
    """In the model by the worker's own watch, in the queue by its look at what it is given."""

    async def expire() -> None:
        async with calls_on(fleet) as calls:
            first, *holders = await calls.hold_all_slots()
            await calls.let_go([first])
            with edge_beside(fleet.stack, "edge-three") as doomed:
                async with client_of(doomed.url) as client:
                    running, its_task = await calls.begin(client, stream=True, timeout=2)
                    await calls.until_there_is(Delta, running)
                    waiting, other_task = await calls.begin(client, stream=False, timeout=1)
                    before = calls.num_prompt_tokens()
                    doomed.kill()
                    await asyncio.gather(its_task, other_task, return_exceptions=True)
            for request_id in (running, waiting):
                await calls.until_there_is(Failed, request_id)
                (failed,) = (event for event in await calls.journal(request_id) if isinstance(event, Failed))
                assert failed.code == "deadline_exceeded"
                assert failed.run is not None  # a worker says so
                await calls.check_ended_at_once(request_id, Failed)
            await calls.until_queue_is(QueueState(len(holders), len(holders)))
            assert calls.num_prompt_tokens() == before
            await calls.let_go(holders)

    asyncio.run(expire())
