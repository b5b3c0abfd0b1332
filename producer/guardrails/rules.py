"""Guardrails as they are decided, made ready for use."""

import asyncio
import contextlib
from dataclasses import dataclass

from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.policy_engine import PolicyEngine, open_engine
from producer.guardrails.text_rules import TextRules, prepared
from schemas.policy import GuardrailsPolicy


@dataclass(frozen=True, slots=True)
class Rules:
    """`engine` None: nobody is asked. `fail_open`: what nobody could decide on passes."""

    text: TextRules
    engine: PolicyEngine | None
    fail_open: bool

    @property
    def is_empty(self) -> bool:
        return self.text.is_empty and self.engine is None


def check_guardrails(policy: GuardrailsPolicy) -> None:
    """Raises InvalidGuardrails unless all of it can be used here. Nobody is asked."""
    prepared(policy.blocklist, policy.patterns)
    if policy.opa_endpoint is not None:
        open_engine(policy.opa_endpoint, policy.opa_timeout_s)


async def prepare_texts(policy: GuardrailsPolicy) -> None:
    """Make the text rules ready beside the loop. What cannot be used is found out by who uses it."""
    with contextlib.suppress(InvalidGuardrails):
        await asyncio.to_thread(prepared, policy.blocklist, policy.patterns)
