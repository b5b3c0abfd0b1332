"""Lines of plain completions, with one prompt and with many."""

import pytest

from schemas.batch import BatchLine
from tests.conftest import Broker
from tests.producer.batch.draining import draining, results_of
from tests.producer.scripted_worker import ScriptedWorker
from tests.support.batches import batch_publisher

pytestmark = pytest.mark.nats


def _line(index: int, prompt: object) -> BatchLine:
    body = {"model": "echo", "prompt": prompt}
    return BatchLine.model_validate(
        {"job": "j1", "index": index, "custom_id": f"line-{index}", "url": "/v1/completions", "body": body}
    )


async def test_a_line_of_many_prompts_is_one_call_also_when_it_has_more_than_there_are_places(
    broker: Broker, worker: ScriptedWorker
) -> None:
    prompts = [f"prompt {number}" for number in range(9)]
    async with batch_publisher(broker, "acme") as acme, draining(broker):
        await acme.publish(_line(0, "alone"))
        await acme.publish(_line(1, prompts))
        await acme.publish(_line(2, ["x"] * 65))
        results = await results_of(broker, "j1", 3)
    assert [choice["text"] for choice in results[0].body["choices"]] == ["alone"]
    assert [choice["text"] for choice in results[1].body["choices"]] == prompts
    assert (results[0].body["object"], results[1].body["usage"]["prompt_tokens"]) == ("text_completion", 27)
    assert results[2].error is not None and results[2].error["param"] == "prompt"
