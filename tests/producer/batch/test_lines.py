"""Lines of batches through the edge's own admission, on a real broker; the worker is scripted."""

import pytest

from tests.conftest import Broker
from tests.producer.batch.draining import draining, results_of, until_drained
from tests.producer.scripted_worker import ScriptedWorker
from tests.support.batches import batch_line, batch_publisher

pytestmark = pytest.mark.nats


async def test_each_line_gets_the_answer_that_http_would_give(broker: Broker, worker: ScriptedWorker) -> None:
    async with batch_publisher(broker, "acme") as acme, draining(broker):
        for index in range(20):
            await acme.publish(batch_line("j1", index, f"line {index}"))
        results = await results_of(broker, "j1", 20)
        await until_drained(broker)
        read = await acme.result("j1", 7)
    assert read == results[7]
    for index, result in results.items():
        assert (result.status_code, result.custom_id) == (200, f"line-{index}")
        assert result.body["choices"][0]["message"]["content"] == f"line {index}"
        assert result.body["id"] == f"chatcmpl-{result.request_id}"
    assert {run.request.priority for run in worker.runs} == {"batch"}
    assert {run.request.identity.owner for run in worker.runs} == {"batch:acme"}
