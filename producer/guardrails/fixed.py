"""A decision that is the same for every request, in a file."""

from typing import Any

import orjson

from producer.guardrails.decision import Decision, read_decision
from producer.guardrails.errors import InvalidGuardrails, NoDecision


class FixedDecision:
    """Raises InvalidGuardrails when the file holds no decision."""

    def __init__(self, content: bytes) -> None:
        try:
            self._decision = read_decision(orjson.loads(content))
        except orjson.JSONDecodeError:
            raise InvalidGuardrails("opa_endpoint", "the file is not JSON") from None
        except NoDecision as error:
            raise InvalidGuardrails("opa_endpoint", f"{error}") from None

    async def decide(self, request: dict[str, Any]) -> Decision:
        return self._decision

    async def close(self) -> None:
        return
