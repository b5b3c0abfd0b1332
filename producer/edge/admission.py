"""Admission: an ordered list of stages, each of which may refuse. Guardrails and limits are further stages.

Authentication comes before a body is read and is therefore not a stage; an offline publisher brings its own identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from producer.edge.plan import Plan
from schemas.control import ModelCard, ServedModel
from schemas.requests import Identity


@dataclass(slots=True)
class Admission:
    """A plan on its way through the stages, which fill in what they find out."""

    identity: Identity
    plan: Plan
    card: ModelCard | None = None
    serving: Sequence[ServedModel] = ()
    prompt_tokens_estimate: int = 0

    @property
    def model(self) -> ModelCard:
        """The resolved model. Only after the stage that finds it."""
        assert self.card is not None, "the model stage has not run"
        return self.card


class Stage(Protocol):
    async def __call__(self, admission: Admission) -> None:
        """Pass, filling in what later stages need, or raise ServingError."""


async def admit(admission: Admission, stages: Sequence[Stage]) -> None:
    for stage in stages:
        await stage(admission)
