"""What administrators change about the registered models: recorded, checked against the others, and written."""

import asyncio
import time
from typing import Any

from broker.errors import BrokerError
from broker.registry import CardChange, Registry
from producer.audit.audit import Audit
from producer.edge.model_types import ChangeModel, LoadModel
from producer.edge.models import LoadOutcome, Models
from producer.edge.validation import validated
from schemas.audit import AuditEvent, Outcome
from schemas.control import RESERVED_NAME, ModelCard
from schemas.errors import ErrorCode, ServingError
from schemas.model_names import model_id_of
from schemas.requests import Identity


class ModelChanges:
    """Writes cards for an administrator. Raises ServingError: 400 for what cannot be, 404, 503 without broker or audit.

    A model that stays unloaded, and what was changed of one, are remembered over restarts: see docs/operate/models.md.
    """

    def __init__(self, registry: Registry, models: Models, audit: Audit) -> None:
        self._registry = registry
        self._models = models
        self._audit = audit
        self._news = asyncio.Event()
        registry.on_change(self._news.set)

    @property
    def default(self) -> ModelCard | None:
        return self._registry.resolve(None)

    def require(self, model_id: str) -> ModelCard:
        """By id alone: an alias may move. Raises ServingError (404)."""
        return _known(self._registry.models.get(model_id))

    async def load(self, actor: Identity, body: LoadModel, request_id: str) -> ModelCard:
        """Register a model, or load one again as the body says; returns its card."""
        model_id = body.id or model_id_of(body.source)
        options = {name: value for name, value in body.model_dump().items() if name not in ("id", "default")}
        is_first = not self._registry.models

        def change(known: ModelCard | None) -> ModelCard:
            kept: dict[str, Any] = {"created": int(time.time()), "default": is_first}
            if known is not None:
                kept = {name: getattr(known, name) for name in ("created", "default", "configured")}
                kept["load_count"] = known.load_count + 1
            return self._checked({"id": model_id, **kept, **options, "origin": "admin"})

        change(self._registry.models.get(model_id))
        await self._record(actor, "model.load", model_id, request_id, source=body.source, backend=body.backend)
        card = _known(await self._write(model_id, change))
        if body.default:
            await self._make_default(model_id)
        return card

    async def change(self, actor: Identity, model_id: str, body: ChangeModel, request_id: str) -> ModelCard:
        """Change what the body gives, and nothing else; returns the card."""
        given = body.model_dump(include=body.model_fields_set)

        def change(known: ModelCard | None) -> ModelCard:
            return self._checked({**_known(known).model_dump(), **given, "origin": "admin"})

        self.require(model_id)
        change(self._registry.models.get(model_id))
        await self._record(actor, "model.change", model_id, request_id, fields=", ".join(sorted(given)))
        return _known(await self._write(model_id, change))

    async def unload(self, actor: Identity, model_id: str, request_id: str) -> None:
        """Take a model out. The default one only when it is the last."""
        card = self.require(model_id)
        default = self.default
        if default is not None and default.id == card.id and len(self._registry.models) > 1:
            raise ServingError(
                ErrorCode.INVALID_PARAMETER,
                f"The model '{model_id}' is the default, and there are others: make one of them the default first.",
                param="id",
            )
        await self._record(actor, "model.unload", model_id, request_id)
        await self._write(model_id, lambda _: None, unloaded=card.configured)

    async def set_default(self, actor: Identity, model_id: str, request_id: str) -> None:
        self.require(model_id)
        await self._record(actor, "model.set_default", model_id, request_id)
        await self._make_default(model_id)

    async def wait(self, card: ModelCard, limit_s: float) -> LoadOutcome:
        """Until the load that a card asks for has come to something, at most so long."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    self._news.clear()
                    outcome = self._models.outcome(card)
                    is_current = self._registry.models.get(card.id, card).load_key() == card.load_key()
                    if outcome in (LoadOutcome.SERVED, LoadOutcome.FAILED) or not is_current:
                        return outcome
                    await self._news.wait()
        except TimeoutError:
            return self._models.outcome(card)

    def _checked(self, fields: dict[str, Any]) -> ModelCard:
        """Raises ServingError (400) for fields out of range, and names that are another's or nobody's."""
        card = validated(ModelCard, fields)
        taken = {name: other.id for other in self._registry.models.values() for name in other.names}
        for place, name in enumerate(card.names):
            param = "id" if place == 0 else "aliases"
            if name == RESERVED_NAME or not name.isprintable() or name in card.names[:place]:
                raise ServingError(ErrorCode.INVALID_PARAMETER, f"{name!r} cannot be a name here.", param=param)
            if taken.get(name, card.id) != card.id:
                raise ServingError(
                    ErrorCode.INVALID_PARAMETER, f"The name {name!r} is taken by '{taken[name]}'.", param=param
                )
        return card

    async def _make_default(self, model_id: str) -> None:
        try:
            await self._registry.set_default(model_id)
        except BrokerError as error:
            raise _unavailable(error) from None

    async def _write(self, model_id: str, change: CardChange, *, unloaded: str = "") -> ModelCard | None:
        try:
            return await self._registry.change_model(model_id, change, unloaded=unloaded)
        except BrokerError as error:
            raise _unavailable(error) from None

    async def _record(
        self, actor: Identity, action: str, model_id: str, request_id: str, **details: str | int | float | bool
    ) -> None:
        await self._audit.require(
            AuditEvent(
                action,
                Outcome.ALLOWED,
                actor=actor.owner,
                tenant=actor.tenant,
                target=model_id,
                request_id=request_id,
                details=details,
            )
        )


def _known(card: ModelCard | None) -> ModelCard:
    if card is None:
        raise ServingError(ErrorCode.MODEL_NOT_FOUND, "There is no model of that id.", param="id")
    return card


def _unavailable(error: BrokerError) -> ServingError:
    return ServingError(
        ErrorCode.BROKER_UNAVAILABLE,
        f"The models cannot be changed now: {error}.",
        retryable=True,
        retry_after_s=1.0,
    )
