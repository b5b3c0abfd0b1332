"""Lines of batches through the edge's own admission, on a real broker; the worker is scripted."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from broker.batch_queue import BatchQueue
from broker.batch_results import BatchResults
from broker.connection import BrokerConfig, Connection
from broker.errors import BrokerUnavailable
from broker.roles import Role
from broker.subjects import BATCH_LANES, batch_subject
from producer.edge.batch.hooks import BatchHooks
from producer.edge.services import Services
from schemas.batch import BatchJob, BatchResult, BatchSubmission, encode_line, encode_submission
from schemas.policy import GuardrailsPolicy, LimitSet, LimitsPolicy
from tests.conftest import Broker
from tests.producer.batch.draining import draining, results_of, until_drained
from tests.producer.conftest import CONFIG, put_model, running_worker
from tests.producer.scripted_worker import Run, ScriptedWorker, echo
from tests.support.batches import batch_line, batch_publisher
from tests.support.waiting import until

pytestmark = pytest.mark.nats


class Held:
    """A script that answers as `echo` does once it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, run: Run) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (self.open, run.cancelled)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if run.cancelled.is_set():
            await run.lease.ack()
        else:
            await echo(run)


class Records:
    """The records of jobs, as a test wants them."""

    def __init__(self, **changes: Any) -> None:
        self.job: BatchJob | None = BatchJob(
            job="j1", tenant="acme", owner="alice", created_at=1, expires_at=int(time.time()) + 600, **changes
        )

    def change(self, **changes: Any) -> None:
        assert self.job is not None
        self.job = self.job.model_copy(update=changes)

    async def __call__(self, tenant: str, job: str) -> BatchJob | None:
        return self.job if (tenant, job) == ("acme", "j1") else None


def _counted(services: Services, outcome: str) -> float:
    return services.metrics.registry.get_sample_value("inferflux_batch_lines_total", {"outcome": outcome}) or 0.0


async def _publish_raw(broker: Broker, payload: bytes, number: int, model: str = "echo") -> None:
    """What only a publisher of its own making sends."""
    config = BrokerConfig(broker.server.url, Role.BATCH, "raw", broker.server.credentials, "acme")
    connection = await Connection.open(config)
    await connection.publish_acked(batch_subject("acme", model), payload, msg_id=f"raw-{number}")
    await connection.close()


def _error(result: BatchResult) -> tuple[int, str, str | None]:
    assert result.error is not None
    return result.status_code, result.error["code"], result.error["param"]


async def test_each_line_gets_the_answer_that_http_would_give(broker: Broker, worker: ScriptedWorker) -> None:
    async with batch_publisher(broker, "acme") as acme, draining(broker):
        for index in range(20):
            await acme.publish(batch_line("j1", index, f"line {index}"))
        results = await results_of(broker, "j1", 20)
        await until_drained(broker)
        assert await acme.result("j1", 7) == results[7]
        # Stored where they belong, the answers are nowhere else.
        await until(lambda: _num_subjects(broker, "inferflux.tok.*.*.ev", 0))
    for index, result in results.items():
        assert (result.status_code, result.custom_id) == (200, f"line-{index}")
        assert result.body["choices"][0]["message"]["content"] == f"line {index}"
        assert result.body["id"] == f"chatcmpl-{result.request_id}"
    assert {run.request.priority for run in worker.runs} == {"batch"}
    assert {run.request.identity.owner for run in worker.runs} == {"batch:acme"}


async def _num_subjects(broker: Broker, pattern: str, number: int) -> bool:
    info = await broker.topology.api("STREAM.INFO.INFERFLUX_TOKENS", {"subjects_filter": pattern})
    return len(info["state"].get("subjects") or {}) == number


async def test_what_cannot_be_answered_is_refused_as_http_would_refuse_it(
    broker: Broker, worker: ScriptedWorker
) -> None:
    config = replace(CONFIG, guardrails=GuardrailsPolicy(blocklist=("forbidden",)))
    lines = [
        batch_line("j1", 0, "something forbidden"),
        batch_line("j1", 1, model="nobody-knows"),
        batch_line("j1", 2, temperature="hot"),
        batch_line("j1", 3, stream=True),
        batch_line("j1", 4, priority=-1),
        batch_line("j1", 5, service_tier="flex"),
        batch_line("j1", 6, max_tokns=1),
        batch_line("j1", 7, "good"),
    ]
    async with batch_publisher(broker, "acme") as acme, draining(broker, config=config) as services:
        for line in lines:
            await acme.publish(line)
        await _publish_raw(broker, encode_line(batch_line("j1", 8, model="another")), 8)
        await _publish_raw(broker, b'{"job": "j1", "index": 9, "custom_id": "mine", "url": "/v1/embeddings"}', 9)
        await _publish_raw(broker, b"no line at all", 10)
        results = await results_of(broker, "j1", 10)
        await until_drained(broker)
        assert (_counted(services, "done"), _counted(services, "failed")) == (1, 9)
        assert _counted(services, "dropped") == 1
    assert _error(results[0])[:2] == (400, "content_filter")
    assert _error(results[1]) == (404, "model_not_found", "model")
    assert [_error(results[index]) for index in (2, 3, 4, 5, 8)] == [
        (400, "invalid_parameter", name) for name in ("temperature", "stream", "priority", "service_tier", "model")
    ]
    assert _error(results[6]) == (400, "unknown_parameter", "max_tokns")
    assert results[7].status_code == 200
    assert (results[9].custom_id, _error(results[9])[0]) == ("mine", 400)


async def test_over_its_limits_a_tenant_waits_and_loses_nothing(broker: Broker, worker: ScriptedWorker) -> None:
    limits = LimitsPolicy(tenants={"acme": LimitSet(requests_per_minute=4)})
    config = replace(CONFIG, limits=limits, limit_window_s=1.0)
    async with batch_publisher(broker, "acme") as acme, draining(broker, config=config) as services:
        for index in range(10):
            await acme.publish(batch_line("j1", index))
        results = await results_of(broker, "j1", 10)
        assert _counted(services, "put_off") > 0
    assert {result.status_code for result in results.values()} == {200}


async def test_without_a_worker_lines_wait_for_one(broker: Broker) -> None:
    await put_model(broker)
    async with batch_publisher(broker, "acme") as acme, draining(broker) as services:
        await acme.publish(batch_line("j1", 0))
        await until(lambda: _counted(services, "put_off") > 0)
        async with running_worker(broker.worker):
            assert (await results_of(broker, "j1", 1))[0].status_code == 200


async def test_of_a_cancelled_job_what_runs_ends_and_nothing_is_begun(broker: Broker) -> None:
    records, held = Records(), Held()
    await put_model(broker)
    async with (
        running_worker(broker.worker, held, slots=1) as worker,
        batch_publisher(broker, "acme") as acme,
        draining(broker, BatchHooks(records)),
    ):
        for index in range(8):
            await acme.publish(batch_line("j1", index))
        await worker.started.wait()
        records.change(cancelled_at=int(time.time()))
        results = await results_of(broker, "j1", 8)
        await until_drained(broker)
        await until(worker.runs[0].cancelled.is_set)
        # Another job of the same tenant goes on.
        held.open.set()
        await acme.publish(batch_line("j2", 0))
        assert (await results_of(broker, "j2", 1))[0].status_code == 200
    assert {_error(result)[:2] for result in results.values()} == {(409, "batch_cancelled")}


async def test_of_an_expired_job_nothing_is_begun_and_what_runs_goes_on(broker: Broker) -> None:
    records, held = Records(), Held()
    await put_model(broker)
    async with (
        running_worker(broker.worker, held, slots=1),
        batch_publisher(broker, "acme") as acme,
        draining(broker, BatchHooks(records)),
    ):
        for index in range(8):
            await acme.publish(batch_line("j1", index))
        # One runs and two wait in the queue.
        await until(lambda: _num_begun(broker, 3))
        records.change(expires_at=1)
        await until(lambda: _num_results(broker, 5))
        held.open.set()
        results = await results_of(broker, "j1", 8)
    assert [results[index].status_code for index in range(3)] == [200] * 3
    assert {_error(results[index])[:2] for index in range(3, 8)} == {(409, "batch_expired")}


async def _num_begun(broker: Broker, number: int) -> bool:
    info = await broker.edge.api("CONSUMER.INFO.INFERFLUX_REQUESTS.echo-batch-0")
    return bool(info["num_pending"] + info["num_ack_pending"] == number)


async def _num_results(broker: Broker, number: int) -> bool:
    return sum(await BatchResults(broker.edge).counts("acme", "j1")) == number


async def test_the_key_that_brought_a_job_says_what_it_may_and_must_still_hold(
    broker: Broker, worker: ScriptedWorker
) -> None:
    records = Records(models=("echo",))
    async with batch_publisher(broker, "acme") as acme, draining(broker, BatchHooks(records)) as services:
        await acme.publish(batch_line("j1", 0))
        assert (await results_of(broker, "j1", 1))[0].status_code == 200
        assert {run.request.identity.owner for run in worker.runs} == {"alice"}
        held = Held()
        worker.script = held
        worker.started.clear()
        await acme.publish(batch_line("j1", 1))
        await worker.started.wait()
        services.policy.configure(replace(CONFIG, keys=CONFIG.keys[1:]))
        results = await results_of(broker, "j1", 2)
        await acme.publish(batch_line("j1", 2))
        results = await results_of(broker, "j1", 3)
        services.policy.configure(CONFIG)
        held.open.set()
    assert [_error(results[index])[:2] for index in (1, 2)] == [(401, "invalid_api_key")] * 2


async def test_a_model_that_the_key_may_not_use_is_refused(broker: Broker, worker: ScriptedWorker) -> None:
    async with batch_publisher(broker, "acme") as acme, draining(broker, BatchHooks(Records(models=("other",)))):
        await acme.publish(batch_line("j1", 0))
        assert _error((await results_of(broker, "j1", 1))[0])[:2] == (403, "model_not_allowed")
    assert not worker.runs


async def test_a_submission_is_expanded_until_that_works(broker: Broker, worker: ScriptedWorker) -> None:
    """Also while the model is busy."""
    asked: list[tuple[str, str]] = []

    async def expand(tenant: str, submission: BatchSubmission, renew: Callable[[], Awaitable[None]]) -> None:
        await renew()
        asked.append((tenant, submission.submission))
        if len(asked) == 1:
            raise BrokerUnavailable("not now")

    held = Held()
    worker.script = held
    async with batch_publisher(broker, "acme") as acme, draining(broker, BatchHooks(expand=expand)):
        for index in range(12):
            await acme.publish(batch_line("j1", index))
        await worker.started.wait()
        await _publish_raw(broker, encode_submission(BatchSubmission(submission="j2")), 1, "submission")
        await until(lambda: len(asked) == 2)
        held.open.set()
        await results_of(broker, "j1", 12)
        await until_drained(broker)
    assert asked == [("acme", "j2")] * 2


async def test_a_submission_that_nobody_can_expand_is_dropped(broker: Broker) -> None:
    async with draining(broker) as services:
        await _publish_raw(broker, encode_submission(BatchSubmission(submission="j2")), 1)
        await until_drained(broker)
        assert _counted(services, "dropped") == 1


async def test_a_line_whose_result_is_there_is_not_done_again(broker: Broker, worker: ScriptedWorker) -> None:
    line = batch_line("j1", 0)
    queue = BatchQueue(broker.edge, wait_s=0.2)
    await queue.start()
    async with batch_publisher(broker, "acme") as acme:
        await acme.publish(line)
        found = await asyncio.gather(*map(queue.next, range(BATCH_LANES)))
        (lease,) = [each for each in found if each is not None]
        done = BatchResult(job="j1", index=0, custom_id="x", request_id="r1", status_code=200, body={"mine": True})
        await queue.publish_result("acme", done)
        await lease.nak()
        await queue.close()
        async with draining(broker):
            await until_drained(broker)
        assert await acme.result("j1", 0) == done
    assert not worker.runs


async def test_a_line_that_breaks_something_is_given_up_after_some_deliveries(
    broker: Broker, worker: ScriptedWorker
) -> None:
    async def broken(tenant: str, job: str) -> BatchJob | None:
        if job == "j1":
            raise RuntimeError("a fault of ours")
        return None

    queue = BatchQueue(broker.edge, wait_s=0.05)
    await queue.start()
    async with batch_publisher(broker, "acme") as acme:
        await acme.publish(batch_line("j1", 0))
        for _ in range(4):
            for lease in await asyncio.gather(*map(queue.next, range(BATCH_LANES))):
                if lease is not None:
                    await lease.nak()
        await queue.close()
        async with draining(broker, BatchHooks(broken)):
            assert _error((await results_of(broker, "j1", 1))[0])[:2] == (500, "internal")
            await acme.publish(batch_line("j2", 0))
            assert (await results_of(broker, "j2", 1))[0].status_code == 200


async def test_an_edge_that_leaves_gives_back_its_lines_and_the_next_one_joins_what_runs(broker: Broker) -> None:
    held = Held()
    await put_model(broker)
    async with running_worker(broker.worker, held, slots=1) as worker, batch_publisher(broker, "acme") as acme:
        async with draining(broker) as services:
            for index in range(6):
                await acme.publish(batch_line("j1", index, f"line {index}"))
            await worker.started.wait()
            services.drain.begin()
        async with draining(broker, config=replace(CONFIG, edge_id="e2")):
            held.open.set()
            results = await results_of(broker, "j1", 6)
            await until_drained(broker)
    assert [results[index].body["choices"][0]["message"]["content"] for index in range(6)] == [
        f"line {index}" for index in range(6)
    ]
    ran = [run.request.request_id for run in worker.runs]
    assert len(set(ran)) == len(ran) == 6
    assert set(ran) == {result.request_id for result in results.values()}


async def test_the_loss_of_the_broker_loses_no_line(broker: Broker, worker: ScriptedWorker) -> None:
    results = BatchResults(broker.edge)
    async with batch_publisher(broker, "acme") as acme, draining(broker):
        for index in range(60):
            await acme.publish(batch_line("j1", index, f"line {index}"))
        await until(lambda: _has_some(results, 5))
        await broker.server.restart()
        found = await results_of(broker, "j1", 60)
        await until_drained(broker)
    assert {index for index, result in found.items() if result.status_code == 200} == set(range(60))


async def _has_some(results: BatchResults, number: int) -> bool:
    return sum(await results.counts("acme", "j1")) >= number
