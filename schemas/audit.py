"""Who did what, as it is recorded. No secret and no text of a prompt or an answer ever stands in it."""

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. `action` is `noun.verb`, such as api_key.revoke; `actor` is an owner id, empty when nobody is known.

    `details` are short facts, with hashes in place of texts.
    """

    action: str
    outcome: Outcome
    actor: str = ""
    tenant: str = ""
    target: str = ""
    request_id: str = ""
    reason: str = ""
    details: dict[str, str | int | float | bool] = field(default_factory=dict)
