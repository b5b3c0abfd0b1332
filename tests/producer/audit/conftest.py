"""An audit of its own on a real broker, without an edge around it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from broker.audit_stream import AuditStream
from producer.audit.audit import Audit
from producer.config import AuditConfig
from tests.conftest import Broker

PEPPER = b"pepper of a test"
Open = Callable[..., AbstractAsyncContextManager[Audit]]


@pytest.fixture
def open_audit(broker: Broker) -> Open:
    """Opens an audit that writes as `writer`."""

    @asynccontextmanager
    async def opened(
        writer: str = "e1", on_lost: Callable[[], None] = lambda: None, pepper: bytes = PEPPER, **config: Any
    ) -> AsyncIterator[Audit]:
        audit = Audit(AuditStream(broker.edge), AuditConfig(**config), pepper, writer, on_lost)
        async with audit.running():
            yield audit

    return opened
