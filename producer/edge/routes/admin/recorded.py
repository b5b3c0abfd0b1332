"""What administrators do beside the policy, in the audit before it is done."""

from starlette.requests import Request

from producer.edge.context import context_of, identity_of
from producer.edge.guard import services_of
from schemas.audit import AuditEvent, Outcome


async def record(request: Request, action: str, target: str = "", **details: str | int | float | bool) -> None:
    """Raises ServingError (audit_unavailable): then it must not be done."""
    identity = identity_of(request)
    event = AuditEvent(
        action,
        Outcome.ALLOWED,
        actor=identity.owner,
        tenant=identity.tenant,
        target=target,
        request_id=context_of(request).request_id,
        details=details,
    )
    await services_of(request).audit.require(event)
