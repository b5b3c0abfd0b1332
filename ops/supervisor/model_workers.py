"""The workers of `up`: so many processes for each model, and none for two models.

A library's threads, its crash and a file that does not load then concern one model alone.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops.errors import CannotStart
from ops.supervisor.service import Service

log = logging.getLogger("inferflux.up")


@dataclass(slots=True)
class ModelWorkers:
    """The processes of one model. `failure` is why the first of them that did not start did not."""

    model_id: str
    services: list[Service]
    failure: str | None = None


@dataclass(slots=True)
class Workers:
    """All of them, in the order of the configuration."""

    models: list[ModelWorkers] = field(default_factory=list)

    @classmethod
    def make(cls, model_ids: Sequence[str], per_model: int, make: Callable[[int, str], Service]) -> "Workers":
        """`make(number, model)` is called with numbers from 1 on."""
        workers = cls()
        for place, model_id in enumerate(model_ids):
            numbers = range(place * per_model + 1, (place + 1) * per_model + 1)
            workers.models.append(ModelWorkers(model_id, [make(number, model_id) for number in numbers]))
        return workers

    def __iter__(self) -> Iterator[Service]:
        return (service for model in self.models for service in model.services)

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What those that serve said when they were ready."""
        return [service.facts for service in self if service.facts is not None]

    @property
    def unserved(self) -> dict[str, str]:
        """Models that no process serves since none could start, with the reason."""
        served = {model["id"] for facts in self.facts for model in facts["models"]}
        return {
            model.model_id: model.failure
            for model in self.models
            if model.failure is not None and model.model_id not in served
        }

    async def first_ready(self) -> None:
        """Wait until each serves or has failed. A failure is logged; when nothing serves, CannotStart is raised."""
        started = await asyncio.gather(
            *(_has_started(model, service) for model in self.models for service in model.services)
        )
        failures = [model.failure for model in self.models if model.failure is not None]
        if failures and not any(started):
            raise CannotStart("; ".join(failures))


async def _has_started(model: ModelWorkers, service: Service) -> bool:
    try:
        await service.first_ready()
    except CannotStart as error:
        model.failure = model.failure or str(error)
        log.error("model %s is not served by %s", model.model_id, error)
        return False
    return True
