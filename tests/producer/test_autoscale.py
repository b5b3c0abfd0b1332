"""Hints of two real edges on a real broker."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from broker.registry import Registry
from producer.config import AutoscaleConfig
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.scripted_worker import Run, echo
from tests.support.waiting import until

pytestmark = pytest.mark.nats

AUTOSCALE = AutoscaleConfig(idle_to_zero_s=3600, stabilization_s=3600)


async def look(edge: Edge, query: str = "") -> Any:
    answer = await edge.client.get(f"/v1/admin/autoscale{query}", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    return answer.json()


async def hint(edge: Edge) -> Any:
    return (await look(edge))["data"][0]


async def gauge(edge: Edge) -> float:
    text = (await edge.client.get(edge.address.metrics_url)).text
    line = next(line for line in text.splitlines() if line.startswith('inferflux_workers_desired{model="echo"}'))
    return float(line.rpartition(" ")[2])


async def test_edges_say_the_same_of_refused_and_of_waiting_calls(broker: Broker) -> None:
    await put_model(broker)
    one_config, gate = replace(CONFIG, autoscale=AUTOSCALE), asyncio.Event()

    async def held(run: Run) -> None:
        await gate.wait()
        await echo(run)

    async with running_edge(broker, one_config) as one, running_edge(broker, replace(one_config, edge_id="e2")) as two:
        asleep = await hint(one)
        assert (asleep["desired"], asleep["current"], asleep["reason"]) == (0, 0, "idle")
        assert await gauge(two) == 0
        assert (await one.post(chat())).json()["error"]["code"] == "no_worker"
        assert (await hint(one))["desired"] == 1

        async def is_told() -> bool:
            return bool((await hint(two))["inputs"]["refused_per_minute"])

        await until(is_told)
        woken = await hint(two)
        assert (woken["desired"], woken["reason"], woken["inputs"]["slots_per_worker"]) == (1, "refused", None)
        assert await gauge(two) == 1
        async with running_worker(broker.worker, held, slots=2):
            await until_served(one)
            await until_served(two)
            calls = [asyncio.create_task(edge.post(chat(timeout=300))) for edge in (one, two) for _ in range(12)]

            for edge in (one, two):

                async def is_queued(edge: Edge = edge) -> bool:
                    each = await hint(edge)
                    queue = each["inputs"]["queue"]["normal"]
                    return bool(queue["running"] == 2 and queue["waiting"] == 22 and each["desired"] > 1)

                await until(is_queued)
                each = await hint(edge)
                assert (each["current"], each["inputs"]["slots_per_worker"]) == (1, 2)
                assert each["inputs"]["waiting_tokens"] > 0
                assert each["desired"] > 1 and each["reason"] in (
                    "backlog",
                    "arrivals",
                    "age",
                    "stabilizing",
                    "max_workers",
                )
            assert await gauge(one) > 1
            only = (await look(one, "?model=echo"))["data"]
            assert [each["model"] for each in only] == ["echo"]
            assert (await look(one, "?model=absent"))["error"]["code"] == "model_not_found"
            assert (await look(one, "?models=echo"))["error"]["code"] == "unknown_parameter"
            gate.set()
            assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
            assert (await hint(one))["desired"] > 1


async def test_without_a_broker_the_last_number_stays(broker: Broker) -> None:
    await put_model(broker)
    async with running_edge(broker) as edge, running_worker(broker.worker):
        await until_served(edge)
        assert (await hint(edge))["desired"] == await gauge(edge) == 1
        await broker.server.kill()

        async def is_told() -> bool:
            return "error" in await look(edge)

        await until(is_told)
        assert (await look(edge))["error"]["code"] == "broker_unavailable"
        assert await gauge(edge) == 1
        await broker.server.start()

        async def is_back() -> bool:
            return "data" in await look(edge)

        await until(is_back)
        assert (await hint(edge))["desired"] == 1


async def test_a_model_that_is_gone_wants_nobody(broker: Broker) -> None:
    await put_model(broker)
    async with running_edge(broker) as edge:
        assert await gauge(edge) == 1
        registry = Registry(broker.edge, watch_workers=False)
        await registry.start()
        await registry.delete_model("echo")
        await registry.close()

        async def is_gone() -> bool:
            text = (await edge.client.get(edge.address.metrics_url)).text
            return (await look(edge))["data"] == [] and "inferflux_workers_desired{" not in text

        await until(is_gone)
