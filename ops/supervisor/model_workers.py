"""The workers of `up`: so many processes for each model, and none for two models.

A library's threads, its crash and a file that does not load then concern one model alone. They follow the registered
models: one process more for a new model, the end of one for a model that was unloaded. What else changes about a model
its process sees to, but for another backend: then a new process takes over from the old one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ops.errors import CannotStart
from ops.supervisor.service import Service
from schemas.control import ModelCard

log = logging.getLogger("inferflux.up")


@dataclass(slots=True)
class ModelWorkers:
    """The processes of one model. `failure` is why the first of them that did not start did not.

    `backend` is theirs, as far as that is known; `successors`, on `next_backend`, will take over once they serve.
    """

    model_id: str
    services: list[Service]
    card: ModelCard | None = None
    backend: str | None = None
    failure: str | None = None
    successors: list[Service] = field(default_factory=list)
    next_backend: str | None = None


class Workers:
    """All of them, in the order in which they were started.

    `make(number, model)` is called with numbers from 1 on, `find_backend(card)` gives None where none is found.
    """

    def __init__(
        self, per_model: int, make: Callable[[int, str], Service], find_backend: Callable[[ModelCard], str | None]
    ) -> None:
        self.models: dict[str, ModelWorkers] = {}
        self._per_model = per_model
        self._make = make
        self._find_backend = find_backend
        self._number = 0
        self._leaving: dict[Service, asyncio.Task[None]] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._is_underway = False

    def __iter__(self) -> Iterator[Service]:
        for model in self.models.values():
            yield from model.services
            yield from model.successors
        yield from list(self._leaving)

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What those that are ready said then."""
        return [service.facts for service in self if service.facts is not None]

    @property
    def unserved(self) -> dict[str, str]:
        """Models that no process serves since none could start, with the reason."""
        served = {model["id"] for facts in self.facts for model in facts["models"]}
        return {
            model.model_id: model.failure
            for model in self.models.values()
            if model.failure is not None and model.model_id not in served
        }

    async def follow(
        self,
        cards: Mapping[str, ModelCard],
        serves: Callable[[str, str], bool],
        skips: Callable[[str, ModelCard], bool],
    ) -> None:
        """Start and end processes so that each card has its own. `serves(worker, model)` and `skips(worker, card)`: it
        says so itself, of what needs another process.
        """
        for model_id in [model_id for model_id in self.models if model_id not in cards]:
            model = self.models.pop(model_id)
            log.info("model %s is unloaded", model_id)
            self._let_go([*model.services, *model.successors])
        for card in cards.values():
            model_workers = self.models.get(card.id)
            if model_workers is None:
                backend = await asyncio.to_thread(self._find_backend, card)
                self.models[card.id] = ModelWorkers(card.id, [], card, backend)
                self.models[card.id].services = self._start(self.models[card.id])
            elif model_workers.card is None or model_workers.card.load_key() != card.load_key():
                await self._change(model_workers, card)
            else:
                model_workers.card = card
        for model in self.models.values():
            if model.successors and all(_serves(service, model.model_id, serves) for service in model.successors):
                log.info("model %s: the new workers serve", model.model_id, extra={"backend": model.next_backend})
                self._let_go(model.services)
                model.services, model.successors = model.successors, []
                model.backend, model.next_backend = model.next_backend, None
            elif not model.successors and _is_skipped(model, skips):
                assert model.card is not None
                self._replace(model, await asyncio.to_thread(self._find_backend, model.card))

    async def first_ready(self) -> None:
        """Wait until each serves or has failed. A failure is logged; when nothing that is configured serves,
        CannotStart is raised. What administrators have loaded they can also mend, if `up` runs.
        """
        started = await asyncio.gather(
            *(_has_started(model, service) for model in self.models.values() for service in model.services)
        )
        self._is_underway = True
        failures = [model.failure for model in self.models.values() if model.failure is not None]
        is_mendable = any(model.card is not None and model.card.origin != "config" for model in self.models.values())
        if failures and not any(started) and not is_mendable:
            raise CannotStart("; ".join(failures))

    async def _change(self, model: ModelWorkers, card: ModelCard) -> None:
        """The processes follow the card by themselves, unless they have ended or it needs another library."""
        backend = await asyncio.to_thread(self._find_backend, card)
        model.card = card
        if all(service.has_ended for service in model.services):
            self._drop_successors(model)
            model.services, model.backend = self._start(model), backend
        elif backend is None or model.backend is None or backend == model.backend:
            self._drop_successors(model)
            model.backend = model.backend or backend
        elif backend != model.next_backend or all(service.has_ended for service in model.successors):
            self._replace(model, backend)

    def _replace(self, model: ModelWorkers, backend: str | None) -> None:
        """Start processes that take over once they serve. `backend` None: nobody can tell before they do."""
        self._drop_successors(model)
        log.info("model %s goes from %s to %s", model.model_id, model.backend, backend or "another backend")
        model.successors, model.next_backend = self._start(model), backend

    def _drop_successors(self, model: ModelWorkers) -> None:
        self._let_go(model.successors)
        model.successors, model.next_backend = [], None

    def _start(self, model: ModelWorkers) -> list[Service]:
        services = []
        for _ in range(self._per_model):
            self._number += 1
            service = self._make(self._number, model.model_id)
            service.start()
            services.append(service)
            if self._is_underway:  # nobody else waits for it
                task = asyncio.create_task(_tell_failure(model, service), name=f"start of {service.name}")
                self._starting.add(task)
                task.add_done_callback(self._starting.discard)
        return services

    def _let_go(self, services: list[Service]) -> None:
        for service in services:
            task = asyncio.create_task(service.finish(), name=f"end of {service.name}")
            self._leaving[service] = task
            task.add_done_callback(lambda _, service=service: self._leaving.pop(service, None))  # type: ignore[misc]


def _serves(service: Service, model_id: str, serves: Callable[[str, str], bool]) -> bool:
    return service.pid is not None and service.launch is not None and serves(service.launch.id, model_id)


def _is_skipped(model: ModelWorkers, skips: Callable[[str, ModelCard], bool]) -> bool:
    launches = [service.launch for service in model.services if service.pid is not None]
    return model.card is not None and any(launch is not None and skips(launch.id, model.card) for launch in launches)


async def _tell_failure(model: ModelWorkers, service: Service) -> None:
    """It may end before it is ready; what else is wrong with its model the worker says itself."""
    try:
        await service.first_ready()
    except CannotStart as error:
        log.error("model %s is not served by %s", model.model_id, error)


async def _has_started(model: ModelWorkers, service: Service) -> bool:
    try:
        await service.first_ready()
        reason = (service.facts or {"failed": {}})["failed"].get(model.model_id)
        if reason is None:
            return True
        failure = f"{service.name}: {reason}"
    except CannotStart as error:
        failure = str(error)
    model.failure = model.failure or failure
    log.error("model %s is not served by %s", model.model_id, failure)
    return False
