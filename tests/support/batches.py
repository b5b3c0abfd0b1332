"""Lines of batches, and a tenant who publishes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broker.batch_publisher import BatchPublisher
from broker.connection import BrokerConfig, Connection
from broker.roles import Role
from schemas.batch import BatchLine
from tests.conftest import Broker


def batch_line(
    job: str, index: int, text: str = "one two three", *, model: str | None = "echo", **more: Any
) -> BatchLine:
    """A chat; `more` are fields of its body."""
    body = {"messages": [{"role": "user", "content": text}], **more}
    if model is not None:
        body["model"] = model
    return BatchLine(job=job, index=index, custom_id=f"line-{index}", url="/v1/chat/completions", body=body)


@asynccontextmanager
async def batch_publisher(broker: Broker, tenant: str) -> AsyncIterator[BatchPublisher]:
    """With the tenant's own login; the server has to know it."""
    config = BrokerConfig(broker.server.url, Role.BATCH, f"test-{tenant}", broker.server.credentials, tenant)
    connection = await Connection.open(config)
    try:
        yield BatchPublisher(connection, tenant)
    finally:
        await connection.close()
