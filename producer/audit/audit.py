"""The audit of an edge as the rest of it sees it: `note` and `require`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from broker.audit_stream import AuditStream
from producer.audit.chain import Chain
from producer.audit.keys import AuditKeys
from producer.audit.writer import AuditWriter
from schemas.audit import AuditEvent, Outcome

_FLUSH_S = 3.0


class Audit:
    """Owned by the services of one edge."""

    def __init__(self, stream: AuditStream, pepper: bytes, edge_id: str, on_lost: Callable[[], None]) -> None:
        self._writer = AuditWriter(Chain(stream, AuditKeys(pepper), edge_id), on_lost)
        self._stream = stream
        self._edge_id = edge_id

    def note(self, event: AuditEvent) -> None:
        """Record what happened, in the background. While it cannot be, requests go on and the loss is counted."""
        self._writer.note(event)

    async def require(self, event: AuditEvent) -> None:
        """Record what is about to happen. Raises ServingError (audit_unavailable): then it must not."""
        await self._writer.require(event)

    @property
    def num_waiting(self) -> int:
        """Events that are not recorded yet."""
        return self._writer.num_waiting

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it is open, events are recorded; at the end what waits still is."""
        task = asyncio.create_task(self._writer.run(), name="audit")
        self.note(AuditEvent("edge.start", Outcome.ALLOWED, target=self._edge_id))
        try:
            yield
        finally:
            self.note(AuditEvent("edge.stop", Outcome.ALLOWED, target=self._edge_id))
            if self._stream.is_reachable:
                await self._writer.flush(_FLUSH_S)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
