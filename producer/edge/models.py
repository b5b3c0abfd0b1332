"""Models as the API shows them, from the registry's cards and the workers' adverts."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from schemas.control import ModelCard, ServedModel, WorkerAdvert
from schemas.errors import ErrorCode, ServingError

_MAX_SHOWN = 80


class RegistryView(Protocol):
    """What is read of the registry."""

    @property
    def models(self) -> Mapping[str, ModelCard]: ...

    @property
    def workers(self) -> Mapping[str, WorkerAdvert]: ...

    def resolve(self, name: str | None) -> ModelCard | None: ...

    def serving(self, model_id: str) -> Sequence[ServedModel]: ...


class Models:
    """Questions about models. `default_was_servable` stays true once a worker has served the default model."""

    def __init__(self, registry: RegistryView) -> None:
        self._registry = registry
        self.default_was_servable = False

    @property
    def cards(self) -> Mapping[str, ModelCard]:
        return self._registry.models

    def find(self, name: str | None) -> ModelCard | None:
        return self._registry.resolve(name)

    def require(self, name: str | None) -> ModelCard:
        """The model by id or alias, the default for None. Raises ServingError (404)."""
        card = self.find(name)
        if card is None:
            shown = "default" if name is None else name[:_MAX_SHOWN]
            raise ServingError(ErrorCode.MODEL_NOT_FOUND, f"The model '{shown}' does not exist.", param="model")
        return card

    def serving(self, model_id: str) -> Sequence[ServedModel]:
        """One entry for each live worker that takes work for the model."""
        return self._registry.serving(model_id)

    def num_slots(self, model_id: str) -> int:
        return sum(served.slots for served in self.serving(model_id))

    def note_default(self) -> None:
        """Look whether the default model is served; called whenever the registry changes."""
        card = self._registry.resolve(None)
        if card is not None and self.serving(card.id):
            self.default_was_servable = True

    def describe(self, card: ModelCard) -> dict[str, Any]:
        """A model as `/v1/models` lists it."""
        backends = [
            {
                "worker": worker.id,
                "backend": served.backend,
                "reason": served.reason,
                "fingerprint": served.fingerprint,
                "context": served.context,
                "slots": served.slots,
            }
            for worker in self._registry.workers.values()
            if worker.takes_work
            for served in worker.models
            if served.id == card.id
        ]
        return {
            "id": card.id,
            "object": "model",
            "created": card.created,
            "owned_by": "inferflux",
            "root": card.id,
            "aliases": list(card.aliases),
            "default": card.default,
            "max_model_len": min((int(str(entry["context"])) for entry in backends), default=None),
            "max_output_tokens": card.max_output_tokens,
            "ready": bool(backends),
            "backends": backends,
        }
