"""Which models a worker should serve, from its own configuration and from the cards in the bucket `models`."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from broker.connection import Connection
from broker.registry import Registry
from schemas.control import ModelCard
from workers.config import WorkerConfig, WorkerModel

log = logging.getLogger("inferflux.worker")

# The bucket itself may be missing, and the registry waits for it without end.
PATIENCE_S = 2.0
OWN = "own"


class Wish(NamedTuple):
    """A model to serve: one of the worker's own, or as its card says. Wishes with the same key need one engine."""

    key: str
    model: WorkerModel | None
    card: ModelCard | None


class Registration:
    """Follows the registry. `on_change()` is called on the loop; which of the own models stand there is logged.

    A model of our own that was registered and is no more is not wanted any longer: somebody unloaded it.
    """

    def __init__(self, connection: Connection, config: WorkerConfig, on_change: Callable[[], None]) -> None:
        self._registry = Registry(connection, watch_workers=False)
        self._config = config
        self._own = {model.spec.model_id: model for model in config.models}
        self._on_change = on_change
        self._is_registered: dict[str, bool | None] = dict.fromkeys(self._own)
        self._unloaded: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._is_told = asyncio.Event()

    async def start(self) -> None:
        """Return when it is known what is registered, or after a moment."""
        self._task = asyncio.create_task(self._follow(), name="registration")
        await self._is_told.wait()

    async def close(self) -> None:
        """Does nothing before `start`."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._registry.close()

    def wanted(self) -> dict[str, Wish]:
        """By model: the default one first, then the own ones, then the others by age."""
        cards = self._registry.models
        wishes = {
            model_id: Wish(OWN, model, None) for model_id, model in self._own.items() if model_id not in self._unloaded
        }
        for card in sorted(cards.values(), key=lambda card: (not card.default, card.created, card.id)):
            if card.id in self._own and self._is_ours(card):
                continue
            if self._config.plan is not None and (card.id in self._own or self._config.wants(card.id)):
                wishes[card.id] = Wish(card.load_key(), None, card)
        return wishes

    def is_registered(self, model_id: str) -> bool:
        return model_id in self._registry.models

    def _is_ours(self, card: ModelCard) -> bool:
        """Whether the card says what our own configuration does, or has to yield to it."""
        if self._config.plan is None:
            return True
        configured = self._config.configured.get(card.id, card.configured)
        return card.origin == "config" and card.configured == configured

    async def _follow(self) -> None:
        attaching = asyncio.create_task(self._registry.start(), name="registry of models")
        try:
            await asyncio.wait({attaching}, timeout=PATIENCE_S)
            if not attaching.done():
                self._compare()
                self._is_told.set()
            await attaching
        finally:
            attaching.cancel()
        self._registry.on_change(self._changed)
        self._changed()
        self._is_told.set()

    def _changed(self) -> None:
        self._compare()
        self._on_change()

    def _compare(self) -> None:
        for model_id, before in self._is_registered.items():
            is_registered = model_id in self._registry.models
            if is_registered == before:
                continue
            self._is_registered[model_id] = is_registered
            if is_registered:
                log.info("model %s is registered", model_id)
                self._unloaded.discard(model_id)
                continue
            if before:
                self._unloaded.add(model_id)
            log.warning(
                "model %s is not registered, so no request comes for it: run `inferflux topology apply` (or `up`) "
                "with a configuration that names it",
                model_id,
            )
