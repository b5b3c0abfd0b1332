"""What a client is told that has come to a limit: which one, and when there is room. No figures of others."""

from typing import NamedTuple

from producer.limits.entries import Kind
from producer.limits.rules import Rule, Who
from producer.limits.store import Full
from schemas.errors import ErrorCode, ServingError

_UNITS = {
    Kind.REQUESTS: "{limit} requests per minute",
    Kind.TOKENS: "{limit} tokens per minute",
    Kind.RUNNING: "{limit} requests at a time",
    Kind.DAY: "{limit} tokens per day (UTC)",
}


class Refusal(NamedTuple):
    """`amount` did not fit into the rule's limit of that kind."""

    rule: Rule
    kind: Kind
    amount: int
    limit: int
    full: Full

    @property
    def is_hopeless(self) -> bool:
        """Whether the call is larger than the whole limit."""
        return self.amount > self.limit


def refused(refusals: list[Refusal], service_s: float) -> ServingError:
    """The error for the refusal that takes longest. `service_s` is how long a request of the model runs."""
    worst = max(refusals, key=lambda refusal: (refusal.is_hopeless, _wait_s(refusal, service_s)))
    whose = f"{_whose(worst.rule)} {_UNITS[worst.kind].format(limit=worst.limit)}"
    code = ErrorCode.BUDGET_EXCEEDED if worst.kind is Kind.DAY else ErrorCode.RATE_LIMITED
    if worst.is_hopeless:
        return TooLarge(code, f"{whose}, and this call alone {_asks(worst)}. {_advice(worst.kind)}")
    message = f"{whose}: there is no room for this call now"
    if worst.kind in (Kind.TOKENS, Kind.DAY):
        message += f", which {_asks(worst)}"
    return ServingError(code, f"{message}.", retryable=True, retry_after_s=max(_wait_s(worst, service_s), 1.0))


class TooLarge(ServingError):
    """Waiting does not help."""


def _whose(rule: Rule) -> str:
    match rule.who:
        case Who.KEY:
            return "This API key has a limit of"
        case Who.TENANT:
            return f"The tenant '{rule.name}' has a limit of"
        case Who.MODEL:
            return f"The model '{rule.name}' has, for all that use it, a limit of"


def _asks(refusal: Refusal) -> str:
    if refusal.kind in (Kind.TOKENS, Kind.DAY):
        return f"may come to {refusal.amount} tokens, prompt and 'max_tokens' together"
    return f"has {refusal.amount} prompts"


def _advice(kind: Kind) -> str:
    return "Lower 'max_tokens'." if kind in (Kind.TOKENS, Kind.DAY) else "Send fewer prompts in a call."


def _wait_s(refusal: Refusal, service_s: float) -> float:
    if refusal.full.wait_s is not None:
        return refusal.full.wait_s
    # Of those that run, spread over time, one ends after this long.
    return service_s * refusal.amount / max(refusal.limit, 1)
