"""What a call asks for, in our own terms: between `translate`, which reads it, and admission and submission."""

from dataclasses import dataclass

from schemas.requests import Endpoint, PriorityClass, Prompt, SamplingParams


@dataclass(frozen=True, slots=True)
class Plan:
    """One call: a prompt for each choice of the answer, sampling for each prompt.

    `priority_param` names the field the class came from, for refusals. `model` is what the client wrote, None for the
    default.
    """

    endpoint: Endpoint
    model: str | None
    prompts: tuple[Prompt, ...]
    sampling: tuple[SamplingParams, ...]
    priority: PriorityClass
    priority_param: str
    stream: bool
    include_usage: bool
    timeout_s: float | None
    labels: dict[str, str]

    @property
    def service_tier(self) -> str:
        return _TIERS[self.priority]


_TIERS = {
    PriorityClass.HIGH: "priority",
    PriorityClass.NORMAL: "default",
    PriorityClass.LOW: "flex",
    PriorityClass.BATCH: "flex",
}
