"""An edge that leaves: what outlasts its drain is told where to read on, and reads on elsewhere at once."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from producer.edge.call_stream import stream_events
from producer.edge.drain import Drain
from producer.metrics import EdgeMetrics
from schemas.events import Cancelled, Finished
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.hand_fed import make_call, started_view
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import RawClient, events_until, until_settled
from tests.producer.test_stream import events_of, text_of
from tests.support.waiting import until


class Waiting:
    """Says "a" to those that ask for it, waits, and ends with "b"."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def __call__(self, run: Run) -> None:
        if run.prompt_text == "speak":
            await run.say("a")
        await self.release.wait()
        assert await run.claim.checkpoint()
        await run.finish("b")


async def resume(edge: Edge, error: dict[str, Any]) -> str:
    headers = {"last-event-id": error["last_event_id"]} if error["last_event_id"] is not None else {}
    return text_of(events_of((await edge.client.get(error["resume_url"], headers=headers)).content))


@pytest.mark.nats
async def test_what_outlasts_a_drain_is_told_where_to_read_on(broker: Broker) -> None:
    await put_model(broker)
    script = Waiting()
    config = replace(CONFIG, drain_timeout_s=0.2)
    async with (
        running_worker(broker.worker, script, slots=3) as worker,
        running_edge(broker, config) as edge,
        running_edge(broker, replace(config, edge_id="e2")) as other,
    ):
        await until_served(edge)
        speaking = await RawClient.call(edge, chat("speak", stream=True))
        await speaking.read_until(b'"content":"a"')
        held = await RawClient.call(edge, chat("held", stream=True))
        whole = await RawClient.call(edge, chat("whole"))
        await until(lambda: len(worker.runs) == 3)
        # No slot is free any more: this one stays in the queue.
        queued = await RawClient.call(edge, chat("queued", stream=True), X_InferFlux_Queue_Updates="on")
        head = await queued.read_until(b": queued")
        edge.stop.set()
        await edge.task
        streams = {"speaking": await rest_of(speaking), "queued": head.decode() + await rest_of(queued)}
        refusals = {"held": await rest_of(held), "whole": await rest_of(whole)}

        errors: dict[str, dict[str, Any]] = {}
        for name, stream in streams.items():
            assert "[DONE]" not in stream
            errors[name] = last_words(stream)
        for name, refusal in refusals.items():
            assert refusal.startswith("HTTP/1.1 503 ")
            errors[name] = json.loads(refusal.splitlines()[-1])["error"]
            assert f"x-inferflux-resume: {errors[name]['resume_url']}\r\n" in refusal
            assert "retry-after: 1\r\n" in refusal
        assert [errors[name]["last_event_id"] for name in ("speaking", "queued", "held", "whole")] == ["0", *3 * [None]]
        for error in errors.values():
            assert error["code"] == "broker_unavailable"
            assert error["resume_url"].startswith("/v1/requests/") and error["resume_url"] in error["message"]
        assert "Last-Event-ID: 0" in errors["speaking"]["message"]

        reading = {name: asyncio.create_task(resume(other, error)) for name, error in errors.items()}
        script.release.set()
        texts = {name: await task for name, task in reading.items()}
        assert texts == {"speaking": "b", "queued": "b", "held": "b", "whole": "b"}
        await until_settled(broker)
        assert len(worker.runs) == 4
        for client in (speaking, held, whole, queued):
            await client.close()


def last_words(stream: str) -> dict[str, Any]:
    """The error that ends a stream."""
    last = [line for line in stream.splitlines() if line.startswith("data: ")][-1]
    error: dict[str, Any] = json.loads(last.removeprefix("data: "))["error"]
    return error


async def rest_of(client: RawClient) -> str:
    return (await client.reader.read()).decode()


@pytest.mark.nats
async def test_a_drain_cancels_nothing_although_its_clients_wanted_that(broker: Broker, worker: ScriptedWorker) -> None:
    script = worker.script = Waiting()
    async with running_edge(broker, replace(CONFIG, drain_timeout_s=0.0)) as edge:
        await until_served(edge)
        async with await RawClient.call(edge, chat("speak", stream=True)) as client:
            await client.read_until(b'"content":"a"')
            edge.stop.set()
            await edge.task
    script.release.set()
    events = await events_until(broker, Finished)
    assert not any(isinstance(event, Cancelled) for event in events)


@pytest.mark.nats
async def test_a_resumed_stream_is_told_too(broker: Broker, worker: ScriptedWorker) -> None:
    script = worker.script = Waiting()
    config = replace(CONFIG, drain_timeout_s=0.0)
    async with running_edge(broker) as last, running_edge(broker, replace(config, edge_id="e2")) as edge:
        await until_served(last)
        call = asyncio.create_task(last.post(chat("speak", stream=True)))
        await until(lambda: len(worker.runs) == 1)
        path = f"/v1/requests/{worker.runs[0].request.request_id}/events"
        async with edge.client.stream("GET", path, headers={"last-event-id": "0"}) as stream:
            assert stream.status_code == 200
            edge.stop.set()
            told = last_words((await stream.aread()).decode())
        assert told["last_event_id"] == "0"
        script.release.set()
        assert text_of(events_of((await call).content)) == "ab"


async def test_an_end_that_came_with_the_drain_was_not_delivered() -> None:
    view = started_view()
    call = make_call(view)
    drain = Drain()
    services: Any = SimpleNamespace(
        filters=(),
        position_of=None,
        rates=None,
        config=SimpleNamespace(comment_interval_s=4.0),
        metrics=EdgeMetrics(CollectorRegistry()),
        drain=drain,
        lifecycle=SimpleNamespace(note_first_token=lambda call: None),
    )
    view.say("a")
    stream = stream_events(services, call)
    assert text_of(events_of(await anext(stream))) == "a"
    drain.expire()
    view.finish()
    assert b'"resume_url"' in await anext(stream)
    assert [rest async for rest in stream] == []
    assert not call.delivered
