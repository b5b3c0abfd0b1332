"""The audit of an edge as the rest of it sees it: `note` and `require`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from broker.audit_stream import AuditStream
from producer.audit.chain import Chain
from producer.audit.denials import Denials
from producer.audit.keys import AuditKeys
from producer.audit.log_copy import LogCopy
from producer.audit.log_file import AuditLog
from producer.audit.reading import AuditReader
from producer.audit.texts import Texts
from producer.audit.writer import AuditWriter
from producer.config import AuditConfig
from schemas.audit import AuditEvent, Outcome

_FLUSH_S = 3.0


class Audit:
    """Owned by the services of one edge. `level` may change at any time; it holds for what happens from then on."""

    def __init__(
        self, stream: AuditStream, config: AuditConfig, pepper: bytes, edge_id: str, on_lost: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._edge_id = edge_id
        self.level = config.level
        self.keys = AuditKeys(pepper)
        self._chain = Chain(stream, self.keys, edge_id)
        self.reader = AuditReader(stream, self.keys, edge_id, lambda: self._chain.farthest)
        copy = LogCopy(AuditLog(config.log), stream, self.keys, edge_id) if config.log is not None else None
        self._writer = AuditWriter(self._chain, on_lost, copy)
        self._denials = Denials(self.note)
        self.texts = Texts(self.keys, config.content)

    def note(self, event: AuditEvent) -> None:
        """Record what happened, in the background. While it cannot be, requests go on and the loss is counted."""
        self._writer.note(event)

    def denied(self, event: AuditEvent, peer: str) -> None:
        """Record that somebody at an address was denied something; many of a kind as one record with their number."""
        self._denials.add(event, peer)

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
        tasks = [
            asyncio.create_task(self._writer.run(), name="audit"),
            asyncio.create_task(self._denials.run(), name="audit denials"),
        ]
        self.note(AuditEvent("edge.start", Outcome.ALLOWED, target=self._edge_id))
        try:
            yield
        finally:
            self._denials.flush()
            self.note(AuditEvent("edge.stop", Outcome.ALLOWED, target=self._edge_id))
            if self._stream.is_reachable:
                await self._writer.flush(_FLUSH_S)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.close()
