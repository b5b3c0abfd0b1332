"""An edge that drains batches, without its HTTP side, and what has come of its lines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from broker.batch_results import BatchResults
from broker.connection import BrokerConfig
from broker.roles import Role
from broker.subjects import STREAM_BATCH
from producer.config import EdgeConfig
from producer.edge.batch.drain import draining_batches
from producer.edge.batch.hooks import BatchHooks
from producer.edge.services import Services, open_services
from schemas.batch import BatchResult
from tests.conftest import Broker
from tests.producer.conftest import CONFIG
from tests.support.waiting import until

NO_RECORDS = BatchHooks()


@asynccontextmanager
async def draining(
    broker: Broker, hooks: BatchHooks = NO_RECORDS, config: EdgeConfig = CONFIG
) -> AsyncIterator[Services]:
    """Gives back what is not begun when it is left."""
    broker_config = BrokerConfig(broker.server.url, Role.EDGE, config.edge_id, broker.server.credentials)
    async with open_services(config, broker_config) as services:
        services = replace(services, batch=hooks)
        async with services.running(), draining_batches(services):
            yield services


async def results_of(broker: Broker, job: str, number: int, tenant: str = "acme") -> dict[int, BatchResult]:
    """The results of a job by line, once there are so many and none of its lines waits any more."""
    results = BatchResults(broker.edge)

    async def are_there() -> bool:
        return sum(await results.counts(tenant, job)) >= number

    await until(are_there)
    found = [result async for result in results.read(tenant, job)]
    by_line = {result.index: result for result in found}
    assert len(found) == len(by_line) == number
    return by_line


async def until_drained(broker: Broker) -> None:
    """Wait until no line is left."""

    async def is_empty() -> bool:
        return (await broker.topology.api(f"STREAM.INFO.{STREAM_BATCH}"))["state"]["messages"] == 0

    await until(is_empty)
