"""Admission: an ordered list of stages, each of which may refuse. Guardrails and limits are further stages.

Authentication comes before a body is read and is therefore not a stage; an offline publisher brings its own identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from producer.edge.plan import Plan
from producer.edge.waiting import Ticket
from producer.limits.charge import Charge
from schemas.control import ModelCard, ServedModel
from schemas.requests import Identity


@dataclass(slots=True)
class Admission:
    """A plan on its way through the stages, which fill in what they find out.

    `prompt_tokens` is estimated, one number for each prompt. `ticket` is room in the queue and `charge` what the call
    takes from its limits; whoever submits the plan settles both.
    """

    identity: Identity
    plan: Plan
    card: ModelCard | None = None
    serving: Sequence[ServedModel] = ()
    prompt_tokens: list[int] = field(default_factory=list)
    ticket: Ticket | None = None
    charge: Charge | None = None

    def release(self) -> None:
        """The plan will not be submitted."""
        if self.ticket is not None:
            self.ticket.release()
        if self.charge is not None:
            self.charge.give_back()

    @property
    def model(self) -> ModelCard:
        """The resolved model. Only after the stage that finds it."""
        assert self.card is not None, "the model stage has not run"
        return self.card


class Stage(Protocol):
    async def __call__(self, admission: Admission) -> None:
        """Pass, filling in what later stages need, or raise ServingError."""


async def admit(admission: Admission, stages: Sequence[Stage]) -> None:
    """Run the stages in order. Raises ServingError with the first refusal; then the admission holds nothing."""
    try:
        for stage in stages:
            await stage(admission)
    except BaseException:
        admission.release()
        raise
