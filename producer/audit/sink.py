"""What those who change something need of the record."""

from typing import Protocol

from schemas.audit import AuditEvent


class AuditSink(Protocol):
    async def require(self, event: AuditEvent) -> None:
        """Store the event; it is there when this returns. Raises ServingError when it cannot be stored."""
