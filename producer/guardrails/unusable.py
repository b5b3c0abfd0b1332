"""Rules that an edge was given and cannot use."""

from typing import Any

from producer.guardrails.decision import Decision
from producer.guardrails.errors import NoDecision


class Unusable:
    """In place of a policy that cannot be read here: it never decides."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def decide(self, request: dict[str, Any]) -> Decision:
        raise NoDecision(self._reason)

    async def close(self) -> None:
        return
