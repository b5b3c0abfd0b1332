"""Deaths around an edge: of workers, of the broker, of the edge itself."""

import asyncio
import contextlib

import pytest

from broker.roles import Role
from tests.conftest import Broker
from tests.producer.conftest import Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import RawClient
from tests.producer.test_stream import events_of, text_of
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def until_running(worker: ScriptedWorker, count: int) -> None:
    await until(lambda: len(worker.runs) >= count)


async def until_serving(edge: Edge) -> None:
    async def serves() -> bool:
        return (await edge.post(chat())).status_code == 200

    await until(serves)


async def until_refused(edge: Edge) -> None:
    """Wait until nothing listens any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", edge.address.port)
        except OSError:
            return
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await asyncio.sleep(0.01)


async def continues(run: Run) -> None:
    """Says what is left of a text of eight pieces, whoever said the rest."""
    whole = [f"<{index}>" for index in range(8)]
    await run.say(*whole[len(run.claim.token_ids) :])
    await run.finish()


async def test_the_work_of_a_dead_worker_goes_to_another_within_the_lease(broker: Broker) -> None:
    await put_model(broker)

    async def falls_silent(run: Run) -> None:
        await run.say("<0>", "<1>", "<2>")
        await run.claim.checkpoint()
        await asyncio.Event().wait()

    doomed = ScriptedWorker(await broker.server.connect(Role.WORKER, "doomed"), falls_silent, worker_id="w1")
    await doomed.start()
    async with running_edge(broker) as edge:
        await until_served(edge)
        async with await RawClient.call(edge, chat(stream=True)) as client:
            await client.read_until(b"<2>")
            async with running_worker(broker.worker, continues, worker_id="w2") as heir:
                await doomed.die()
                # The lease alone would take fifteen seconds.
                async with asyncio.timeout(10):
                    rest = await client.read_until(b"[DONE]")
                assert b"<3>" in rest and b"<7>" in rest and b"<2>" not in rest
                assert len(heir.runs) == 1
    await doomed.close()


async def test_a_silent_worker_that_lives_keeps_its_work(edge: Edge, worker: ScriptedWorker) -> None:
    async def slow(run: Run) -> None:
        await run.say("a")
        await asyncio.sleep(1.5)
        await run.finish("b")

    worker.script = slow
    assert text_of(events_of((await edge.post(chat(stream=True))).content)) == "ab"
    assert len(worker.runs) == 1


async def test_accepted_work_survives_a_restart_of_the_broker(
    edge: Edge, worker: ScriptedWorker, broker: Broker
) -> None:
    release = asyncio.Event()

    async def waits(run: Run) -> None:
        await run.say("a")
        await release.wait()
        await run.finish("b")

    worker.script = waits
    calls = [asyncio.create_task(edge.post(chat(stream=stream))) for stream in (False, True)]
    await until_running(worker, 2)
    await broker.server.restart()
    release.set()
    whole, streamed = await asyncio.gather(*calls)
    assert whole.json()["choices"][0]["message"]["content"] == "ab"
    assert text_of(events_of(streamed.content)) == "ab"
    await until_serving(edge)


async def test_without_a_broker_the_edge_is_not_ready_and_says_so(edge: Edge, broker: Broker) -> None:
    await broker.server.kill()

    async def is_unready() -> bool:
        return (await edge.client.get("/readyz")).status_code != 200

    await until(is_unready)
    answer = await edge.client.get("/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "broker_unavailable")
    assert (await edge.client.get("/livez")).status_code == 200
    assert (await edge.client.get("/v1/models")).status_code == 200
    refused = await edge.post(chat())
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "broker_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    await broker.server.start()
    await until_serving(edge)


async def test_a_drain_lets_streams_finish(broker: Broker, worker: ScriptedWorker) -> None:
    release = asyncio.Event()

    async def waits(run: Run) -> None:
        await run.say("a")
        await release.wait()
        await run.finish("b")

    worker.script = waits
    async with running_edge(broker) as edge:
        await until_served(edge)
        async with await RawClient.call(edge, chat(stream=True)) as client:
            await client.read_until(b'"content":"a"')
            whole = asyncio.create_task(edge.post(chat()))
            await until_running(worker, 2)
            edge.stop.set()
            await until_refused(edge)
            release.set()
            assert b'"content":"b"' in await client.read_until(b"[DONE]")
            assert (await whole).json()["choices"][0]["message"]["content"] == "ab"
            await edge.task


@pytest.mark.slow
async def test_a_deadline_holds_while_the_broker_is_away(edge: Edge, worker: ScriptedWorker, broker: Broker) -> None:
    async def waits(run: Run) -> None:
        await asyncio.Event().wait()

    worker.script = waits
    call = asyncio.create_task(edge.post(chat(timeout=0.5)))
    await worker.started.wait()
    await broker.server.kill()
    answer = await call
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    await broker.server.start()
