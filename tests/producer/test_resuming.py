"""Reading a call again: from any event, through any edge, for its owner, for as long as there is something to read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from broker.journal import LAPSED, PURGED
from broker.subjects import STREAM_TOKENS
from producer.edge.ids import derive_request_id, is_own, mint_request_id
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled, Finished
from tests.conftest import Broker
from tests.producer.conftest import (
    CONFIG,
    KEY,
    OTHER_KEY,
    Edge,
    chat,
    put_model,
    running_edge,
    running_worker,
    until_served,
)
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import RawClient, events_until, num_queued, until_queued, until_settled
from tests.producer.test_stream import events_of, stop_at, text_of, upper
from tests.support.waiting import until

pytestmark = pytest.mark.nats

SECOND = replace(CONFIG, edge_id="e2")
# Tokens in the middle of a character let no text out.
PIECES = ("He", "", "", "", "🙂", "l", "", "é", "lo", "", "")
TEXT = "He🙂lélo"


@pytest.fixture
async def other(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Edge]:
    async with running_edge(broker, SECOND) as other:
        await until_served(other)
        yield other


class Gate:
    """A script that says the first pieces, waits, and says the rest."""

    def __init__(self, pieces: Sequence[str] = PIECES, first: int = 5) -> None:
        self.open = asyncio.Event()
        self._pieces = pieces
        self._first = first

    async def __call__(self, run: Run) -> None:
        await run.say(*self._pieces[: self._first])
        assert await run.claim.checkpoint()
        waits = [asyncio.create_task(each.wait()) for each in (self.open, run.cancelled)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if run.cancelled.is_set():
            await run.lease.ack()
            return
        await run.say(*self._pieces[self._first :])
        await run.finish()


async def resume(edge: Edge, request_id: str, last: str | None = None, **headers: str) -> httpx2.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if last is not None:
        sent["last-event-id"] = last
    return await edge.client.get(f"/v1/requests/{request_id}/events", headers=sent)


def resuming(edge: Edge, request_id: str, last: str | None) -> AbstractAsyncContextManager[httpx2.Response]:
    """The same, entered as soon as the status is there."""
    headers = {} if last is None else {"last-event-id": last}
    return edge.client.stream("GET", f"/v1/requests/chatcmpl-{request_id}/events", headers=headers)


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def lose(edge: Edge, worker: ScriptedWorker, body: dict[str, Any], path: str = "/v1/chat/completions") -> str:
    """Call, and lose the connection once the worker is at it; the work goes on. The request's id."""
    known = len(worker.runs)
    call = asyncio.create_task(edge.post(body, path, X_InferFlux_On_Disconnect="continue"))
    await until(lambda: len(worker.runs) > known)
    call.cancel()
    await asyncio.wait({call})
    request_id = worker.runs[known].request.request_id
    return request_id.partition("-")[0]


async def until_dropped(broker: Broker, reason: str) -> None:
    async def is_dropped() -> bool:
        info = await broker.topology.api(f"STREAM.INFO.{STREAM_TOKENS}")
        count: int = info["state"]["messages"]
        return count == 1 and Cancelled(reason) in await events_until(broker, Cancelled)

    await until(is_dropped)


def behind(events: list[tuple[str | None, Any]], place: int) -> list[tuple[str | None, Any]]:
    """What follows the text of a token: the later texts, and the end in any case."""
    first = next(number for number, event in enumerate(events) if event[0] is not None and int(event[0]) > place)
    finish = next(number for number, event in enumerate(events) if event[1]["choices"][0]["finish_reason"])
    return events[min(first, finish) :]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_place_of_an_answer_can_be_resumed_through_any_edge(
    edge: Edge, other: Edge, worker: ScriptedWorker, path: str, stream: bool
) -> None:
    gate = worker.script = Gate()
    gate.open.set()
    body: dict[str, Any] = {"prompt": "p"} if path == "/v1/completions" else chat("p")
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    # With a key the journal stays although its end was delivered.
    called = await edge.post(body, path, Idempotency_Key="k")
    request_id = called.headers["x-request-id"]
    beginning = await resume(other, request_id)
    events = events_of(beginning.content)
    assert text_of(events) == TEXT
    assert (len(events[-2][1]["choices"]) == 0) is stream
    if stream:
        assert beginning.content == called.content
        assert called.headers["x-inferflux-resume"] == f"/v1/requests/{request_id}/events"
    for each in (edge, other):
        for place in range(len(PIECES)):
            answer = await resume(each, request_id, str(place))
            assert answer.headers["x-request-id"] == request_id
            assert answer.headers["x-inferflux-resume"] == f"/v1/requests/{request_id}/events"
            assert answer.headers["content-type"].startswith("text/event-stream")
            rest = events_of(answer.content)
            assert text_of(rest) == "".join(PIECES[place + 1 :])
            if place < len(PIECES) - 1:
                assert rest == behind(events, place)


async def test_a_running_answer_goes_on_through_another_edge(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    gate = worker.script = Gate()
    request_id = await lose(edge, worker, chat(stream=True))
    async with contextlib.AsyncExitStack() as stack:
        places = [(other, place) for place in (None, "0", "2", "4", "7")] + [(edge, "2")]
        readers = [await stack.enter_async_context(resuming(each, request_id, place)) for each, place in places]
        gate.open.set()
        answers = [events_of(await reader.aread()) for reader in readers]
    assert [text_of(events) for events in answers] == [TEXT, "🙂lélo", "🙂lélo", "lélo", "lo", "🙂lélo"]
    assert all(events[-1][1] == "[DONE]" for events in answers)
    assert len(worker.runs) == 1
    assert {event for event in await events_until(broker, Cancelled) if isinstance(event, Cancelled)} == {
        Cancelled(PURGED)
    }


async def until_line(lines: AsyncIterator[str], text: str) -> str:
    async for line in lines:
        if text in line:
            return line
    raise AssertionError(f"the stream ended without {text}")


async def test_a_queued_request_is_told_its_position_and_then_answered(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    async with running_edge(broker) as edge, running_edge(broker, SECOND) as other:
        async with await RawClient.call(
            edge, chat("a b", stream=True), X_InferFlux_On_Disconnect="continue", X_InferFlux_Queue_Updates="on"
        ) as client:
            head = (await client.read_until(b": queued")).decode().lower()
        request_id = head.partition("x-inferflux-resume: /v1/requests/")[2].partition("/")[0]
        await until_queued(broker)
        path = f"/v1/requests/{request_id}/events"
        async with other.client.stream("GET", path, headers={"x-inferflux-queue-updates": "on"}) as answer:
            lines = answer.aiter_lines()
            await until_line(lines, ": queued position=1")
            async with running_worker(broker.worker):
                assert '"content":"a"' in await until_line(lines, 'content":"a')
                await until_line(lines, "[DONE]")


async def test_several_choices_resume_at_a_place_in_each(edge: Edge, other: Edge, worker: ScriptedWorker) -> None:
    gate = worker.script = Gate(("a", "b", "c"), 2)
    request_id = await lose(edge, worker, {"prompt": ["p", "q"], "stream": True}, "/v1/completions")
    for each in (edge, other):
        for bad in ("1", "1,1,1", "-1,-1"):
            refused = await resume(each, request_id, bad)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")
    async with resuming(other, request_id, "1,-1") as reader:
        gate.open.set()
        events = events_of(await reader.aread())
    assert (text_of(events, 0), text_of(events, 1)) == ("c", "abc")
    assert {event_id for event_id, _ in events} >= {"2,2"}


async def test_a_place_that_is_none_is_refused_by_name(edge: Edge) -> None:
    request_id = (await edge.post(chat("a b"), Idempotency_Key="k")).headers["x-request-id"]
    path = f"/v1/requests/{request_id}/events"
    for place in ("x", "1.5", "-1", "-2", "1e3", "0x1", "+1", "1,", ",1", "1 2", "\xb2", "9" * 30, "1,1", "none"):
        refused = await edge.client.get(path, headers=[(b"last-event-id", place.encode("latin-1"))])
        assert error_of(refused) == (400, "invalid_parameter"), place
        assert refused.json()["error"]["param"] == "Last-Event-ID"
    assert text_of(events_of((await resume(edge, request_id, "")).content)) == "a b"


async def test_a_place_behind_the_end_is_refused_and_costs_nothing(edge: Edge, worker: ScriptedWorker) -> None:
    gate = worker.script = Gate()
    request_id = await lose(edge, worker, chat(stream=True))
    # While it runs nobody knows: the journal may be a moment behind what another edge has shown.
    async with resuming(edge, request_id, "11") as one, resuming(edge, request_id, "1000") as another:
        gate.open.set()
        for reader in (one, another):
            told = (await reader.aread()).decode()
            assert '"param":"Last-Event-ID"' in told and "[DONE]" not in told
    late = await resume(edge, request_id, "11")
    assert (late.status_code, late.json()["error"]["param"]) == (400, "Last-Event-ID")
    assert text_of(events_of((await resume(edge, request_id, "10")).content)) == ""


async def test_a_stranger_learns_nothing(edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker) -> None:
    gate = worker.script = Gate()
    request_id = await lose(edge, worker, {"prompt": ["p", "q"], "stream": True}, "/v1/completions")
    stranger = f"Bearer {OTHER_KEY}"

    async def refusals() -> set[tuple[int, str]]:
        answers = [
            await resume(each, name, authorization=stranger)
            for each in (edge, other)
            for name in (request_id, f"cmpl-{request_id}", f"{request_id}-1", mint_request_id("alice"), "nope", "a.b")
        ]
        answers += [await resume(edge, f"{request_id}-1"), await resume(edge, mint_request_id("bob"))]
        return {(answer.status_code, answer.text) for answer in answers}

    (running,) = await refusals()
    assert running[0] == 404 and '"code":"request_not_found"' in running[1]
    gate.open.set()
    await until_settled(broker)
    assert await refusals() == {running}
    assert (await resume(other, request_id)).status_code == 200
    await until(lambda: is_gone(other, request_id))
    assert await refusals() == {running}


async def is_gone(edge: Edge, request_id: str) -> bool:
    return (await resume(edge, request_id)).status_code == 410


async def test_what_was_delivered_is_dropped_and_its_owner_is_told(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    for stream in (False, True):
        request_id = (await edge.post(chat("a b", stream=stream))).headers["x-request-id"]
        assert is_own(request_id, "alice")
        await until(lambda request_id=request_id: is_gone(edge, request_id))
        for each in (edge, other):
            answer = await resume(each, request_id, "0")
            assert error_of(answer) == (410, "journal_expired")
            assert "delivered" in answer.json()["error"]["message"]
    # Not even the mark is needed, once it has gone by age.
    await broker.edge.api(f"STREAM.PURGE.{STREAM_TOKENS}", {"filter": "inferflux.tok.>"})
    answer = await resume(other, request_id)
    assert error_of(answer) == (410, "journal_expired")
    assert "no longer kept" in answer.json()["error"]["message"]


async def test_a_journal_without_its_beginning_is_gone(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    request_id = (await edge.post(chat("a b"), Idempotency_Key="k")).headers["x-request-id"]
    await broker.edge.api(f"STREAM.PURGE.{STREAM_TOKENS}", {"filter": f"inferflux.tok.e1.{request_id}.head"})
    answer = await resume(other, request_id)
    assert error_of(answer) == (410, "journal_expired")
    assert "no longer kept" in answer.json()["error"]["message"]
    assert error_of(await resume(other, request_id, authorization=f"Bearer {OTHER_KEY}")) == (404, "request_not_found")


async def test_the_end_delivered_elsewhere_drops_the_journal(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    gate = worker.script = Gate()
    request_id = await lose(edge, worker, chat(stream=True))
    gate.open.set()
    await until_settled(broker)
    assert text_of(events_of((await resume(other, request_id, "0")).content)) == TEXT[2:]
    await until_dropped(broker, PURGED)
    # The first edge may still have it at hand for a moment.
    await until(lambda: is_gone(edge, request_id))


async def test_a_reader_that_leaves_again_drops_nothing(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    gate = worker.script = Gate()
    request_id = await lose(edge, worker, chat(stream=True))
    for _ in range(2):
        async with other.client.stream("GET", f"/v1/requests/{request_id}/events") as answer:
            await until_line(answer.aiter_lines(), "🙂")
    assert (await other.client.head(f"/v1/requests/{request_id}/events")).status_code == 200
    gate.open.set()
    await until_settled(broker)
    assert (await other.client.head(f"/v1/requests/{request_id}/events")).status_code == 200
    assert text_of(events_of((await resume(other, request_id)).content)) == TEXT


@pytest.mark.parametrize("from_elsewhere", [False, True])
async def test_a_reader_may_take_the_work_with_it(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker, from_elsewhere: bool
) -> None:
    worker.script = Gate()
    request_id = await lose(edge, worker, chat(stream=True))
    reading = other if from_elsewhere else edge
    headers = {"x-inferflux-on-disconnect": "cancel"}
    async with reading.client.stream("GET", f"/v1/requests/{request_id}/events", headers=headers) as answer:
        await until_line(answer.aiter_lines(), "🙂")
    await worker.runs[0].cancelled.wait()
    await events_until(broker, Cancelled("client_left"))
    await until_settled(broker)


async def test_the_choice_of_the_call_counts_only_for_its_own_connection(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    gate = worker.script = Gate()
    first = await RawClient.call(edge, chat(stream=True))  # "cancel" is the default
    head = (await first.read_until("🙂".encode())).decode().lower()
    request_id = head.partition("\r\nx-request-id: ")[2].partition("\r\n")[0]
    async with edge.client.stream("GET", f"/v1/requests/{request_id}/events") as answer:
        await until_line(answer.aiter_lines(), "🙂")
        first.kill()
        await asyncio.sleep(0.3)  # nothing may happen, which nothing tells
    await asyncio.sleep(0.3)
    gate.open.set()
    await events_until(broker, Finished)
    assert text_of(events_of((await resume(edge, request_id)).content)) == TEXT


async def test_a_cancelled_request_says_so(edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker) -> None:
    for asked, word in ((False, "client left"), (True, "cancelled")):
        worker.script = Gate()
        known = len(worker.runs)
        client = await RawClient.call(edge, chat(stream=True))
        await client.read_until("🙂".encode())
        run = worker.runs[known]
        request_id = run.request.request_id
        reading = asyncio.create_task(resume(other, request_id, "0"))
        if asked:
            await other.client.delete(f"/v1/requests/{request_id}")
        else:
            client.kill()
        await run.cancelled.wait()
        # Whoever reads at that moment gets what there was.
        told = (await reading).text
        assert '"code":"cancelled"' in told or '"code":"journal_expired"' in told
        await until_settled(broker)
        for each in (edge, other):
            await until(lambda each=each, request_id=request_id: is_gone(each, request_id))
            assert word in (await resume(each, request_id)).json()["error"]["message"]
        client.kill()


async def test_a_failure_is_told_again(edge: Edge, other: Edge, worker: ScriptedWorker) -> None:
    async def fails(run: Run) -> None:
        if run.prompt_text == "late":
            await run.say("a", "b")
        await run.fail(ServingError(ErrorCode.POISONED, "it broke"))

    worker.script = fails
    called = await edge.post(chat("early"), Idempotency_Key="early")
    answer = await resume(other, called.headers["x-request-id"])
    assert (answer.status_code, answer.json()) == (500, called.json())
    assert answer.headers["x-should-retry"] == "false"
    called = await edge.post(chat("late", stream=True), Idempotency_Key="late")
    answer = await resume(other, called.headers["x-request-id"])
    assert answer.content == called.content
    answer = await resume(other, called.headers["x-request-id"], "0")
    assert '"content":"b"' in answer.text and '"code":"poisoned"' in answer.text and "[DONE]" not in answer.text


async def test_the_part_that_failed_says_why_all_did(
    edge: Edge, other: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    async def one_fails(run: Run) -> None:
        await run.say("a")
        if run.prompt_text == "bad":
            await run.fail(ServingError(ErrorCode.POISONED, "it broke"))
            return
        await run.cancelled.wait()
        await run.lease.ack()

    worker.script = one_fails
    body = {"prompt": ["good", "bad"], "stream": True}
    called = await edge.post(body, "/v1/completions", Idempotency_Key="k")
    assert '"code":"poisoned"' in called.text
    await until_settled(broker)
    answer = await resume(other, called.headers["x-request-id"], "0,0")
    assert '"code":"poisoned"' in answer.text


async def test_a_resumed_answer_is_filtered_as_the_first_was(broker: Broker) -> None:
    await put_model(broker)
    gate = Gate(("he", "ll", "", "o", "wor", "ld", "! never"), 4)
    filters = [stop_at, upper]
    async with (
        running_worker(broker.worker, gate) as worker,
        running_edge(broker, filters=filters) as edge,
        running_edge(broker, SECOND, filters=filters) as other,
    ):
        await until_served(edge)
        gate.open.set()
        body = chat(stream=True, stream_options={"include_usage": True})
        called = await edge.post(body, Idempotency_Key="k")
        events = events_of(called.content)
        assert text_of(events).startswith("HELLOWORL") and "NEVER" not in text_of(events)
        request_id = called.headers["x-request-id"]
        ids = [int(event_id) for event_id, _ in events if event_id is not None]
        sent = ""
        for number, (event_id, _) in enumerate(events[:-3]):
            sent += text_of(events[number : number + 1])
            if event_id is not None:
                rest = events_of((await resume(other, request_id, event_id)).content)
                assert sent + text_of(rest) == text_of(events)
                assert rest[-3:] == events[-3:]
        assert text_of(events_of((await resume(other, request_id)).content)) == text_of(events)
        assert ids == sorted(ids)
        assert len(worker.runs) == 1


async def test_after_the_resume_window_a_dead_edges_journal_is_not_read(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker) as edge:
        await until_served(edge)
        called = await edge.post(chat("a b"), Idempotency_Key="k")
        request_id = called.headers["x-request-id"]
    async with running_edge(broker, replace(SECOND, resume_window_s=0.01)) as late:
        await until_served(late)
        answer = await resume(late, request_id)
        assert error_of(answer) == (410, "journal_expired")
        assert "time in which it could be resumed is over" in answer.json()["error"]["message"]
        assert error_of(await resume(late, request_id, authorization=f"Bearer {OTHER_KEY}"))[0] == 404
        # And a key that was used then is free again.
        again = await late.post(chat("a b"), Idempotency_Key="k")
        assert again.headers["x-request-id"] == derive_request_id("alice", "k", 1)
    async with running_edge(broker, replace(SECOND, edge_id="e3")) as third:
        assert text_of(events_of((await resume(third, request_id)).content)) == "a b"


async def test_a_living_edge_drops_what_nobody_came_back_for(broker: Broker, worker: ScriptedWorker) -> None:
    async with (
        running_edge(broker, replace(CONFIG, resume_window_s=0.01)) as edge,
        running_edge(broker, SECOND) as other,
    ):
        await until_served(edge)
        gate = worker.script = Gate()
        request_id = await lose(edge, worker, chat(stream=True))
        gate.open.set()
        await until_dropped(broker, LAPSED)
        answer = await resume(other, request_id)
        assert error_of(answer) == (410, "journal_expired")
        assert "time in which" in answer.json()["error"]["message"]


async def test_a_request_that_found_no_room_was_never_there(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    await broker.apply(broker.model.model_copy(update={"queue_max": 0}), fleet_slots=1)
    async with running_edge(broker) as edge:
        refused: httpx2.Response | None = None
        kept = []
        while refused is None:
            before = await num_queued(broker)
            call = asyncio.create_task(edge.post(chat()))
            while refused is None and await num_queued(broker) == before:
                await asyncio.wait({call}, timeout=0.01)
                refused = call.result() if call.done() else None
            kept.append(call)
        assert error_of(refused) == (429, "queue_full")
        request_id = refused.headers["x-request-id"]

        async def is_told() -> bool:
            answer = await resume(edge, request_id)
            return answer.status_code == 410 and "not taken into the queue" in answer.text

        await until(is_told)
        for call in kept:
            call.cancel()
        await asyncio.wait(kept)
        await until_settled(broker)


async def test_without_a_broker_nothing_is_said_about_a_request(edge: Edge, broker: Broker) -> None:
    request_id = (await edge.post(chat("a b"))).headers["x-request-id"]
    await until(lambda: is_gone(edge, request_id))
    await broker.server.kill()
    answer = await resume(edge, request_id)
    assert error_of(answer) == (503, "broker_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    await broker.server.start()


@pytest.mark.sse
async def test_the_sdk_reads_a_resumed_stream(edge: Edge, other: Edge, worker: ScriptedWorker) -> None:
    gate = worker.script = Gate()
    request_id = await lose(edge, worker, chat(stream=True))
    async with openai.AsyncOpenAI(base_url=f"{other.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.get(
            f"/requests/{request_id}/events",
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=openai.AsyncStream[ChatCompletionChunk],
            options={"headers": {"Last-Event-ID": "0"}},
        )
        gate.open.set()
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == TEXT[2:]
        await until(lambda: is_gone(other, request_id))
        with pytest.raises(openai.APIStatusError) as gone:
            await client.get(f"/requests/{request_id}/events", cast_to=httpx2.Response)
        assert (gone.value.status_code, gone.value.code) == (410, "journal_expired")
