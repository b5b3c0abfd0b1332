"""Models as the API shows them, from the registry's cards and the workers' adverts."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from producer.policy.effective import EffectivePolicy
from schemas.control import LoadingModel, ModelCard, ServedModel, WorkerAdvert
from schemas.errors import ErrorCode, ServingError
from schemas.routing import RoutingPolicy

DEFAULT = "default"
_MAX_SHOWN = 80
_NO_OPTIONS = frozenset({"id", "created", "origin", "source"})


class LoadOutcome(StrEnum):
    """Of a load: nobody has begun it, it goes on, a worker serves it, all that tried have failed."""

    WAITING = "waiting"
    LOADING = "loading"
    SERVED = "served"
    FAILED = "failed"


class RegistryView(Protocol):
    """What is read of the registry."""

    @property
    def models(self) -> Mapping[str, ModelCard]: ...

    @property
    def workers(self) -> Mapping[str, WorkerAdvert]: ...

    def resolve(self, name: str | None) -> ModelCard | None: ...

    def serving(self, model_id: str) -> Sequence[ServedModel]: ...


class Models:
    """Questions about models. `default_was_servable` stays true once a worker has served the default model.

    A name is looked for among the ids, then in the routing of the policy, then among the aliases of the cards.
    """

    def __init__(self, registry: RegistryView) -> None:
        self._registry = registry
        self._routing = RoutingPolicy()
        self.default_was_servable = False

    def learn(self, policy: EffectivePolicy) -> None:
        """These rules hold from now on."""
        self._routing = policy.routing
        self.note_default()

    @property
    def cards(self) -> Mapping[str, ModelCard]:
        return self._registry.models

    def find(self, name: str | None) -> ModelCard | None:
        target = self._routed(name)
        return self._registry.resolve(name) if target is None else self._registry.models.get(target)

    def require(self, name: str | None) -> ModelCard:
        """The model by id or alias, the default for None. Raises ServingError (404)."""
        card = self.find(name)
        if card is None:
            shown = DEFAULT if name is None else name[:_MAX_SHOWN]
            target = self._routed(name)
            absent = (
                f"The model '{target}', for which '{shown}' stands," if target is not None else f"The model '{shown}'"
            )
            raise ServingError(ErrorCode.MODEL_NOT_FOUND, f"{absent} does not exist.", param="model")
        return card

    def serving(self, model_id: str) -> Sequence[ServedModel]:
        """One entry for each live worker that takes work for the model."""
        return self._registry.serving(model_id)

    def loading(self, model_id: str) -> list[tuple[str, LoadingModel]]:
        """Who is loading a model, by worker, and how far it is."""
        return [
            (worker.id, loading) for worker in self._live() for loading in worker.loading if loading.model == model_id
        ]

    def failed(self, model_id: str) -> dict[str, str]:
        """Why a model is not served, or not as its card says now, by worker."""
        return {worker.id: worker.failed[model_id] for worker in self._live() if model_id in worker.failed}

    def outcome(self, card: ModelCard) -> LoadOutcome:
        """What has become of the load that a card asks for."""
        key = card.load_key()
        served = [worker for worker in self._live() for model in worker.models if _is_load(model, card, key)]
        if served:
            return LoadOutcome.SERVED
        if self.loading(card.id):
            return LoadOutcome.LOADING
        failed = [worker for worker in self._live() if worker.failed_keys.get(card.id) == key]
        return LoadOutcome.FAILED if failed else LoadOutcome.WAITING

    def _live(self) -> list[WorkerAdvert]:
        return [worker for worker in self._registry.workers.values() if not worker.draining]

    def num_slots(self, model_id: str) -> int:
        return sum(served.slots for served in self.serving(model_id))

    def note_default(self) -> None:
        """Look whether the default model is served; called whenever the registry changes."""
        card = self.find(None)
        if card is not None and self.serving(card.id):
            self.default_was_servable = True

    def is_default(self, card: ModelCard) -> bool:
        """Whether a call that names no model gets this one, as far as anybody decided on it."""
        return card.default if self._routing.default_model is None else card.id == self._routing.default_model

    def _routed(self, name: str | None) -> str | None:
        """The id that the routing has for a name; None where it has none, and the cards decide."""
        if name is None or (name == DEFAULT and name not in self.cards):
            return self._routing.default_model
        return None if name in self.cards else self._routing.aliases.get(name)

    def _aliases(self, card: ModelCard) -> list[str]:
        """Names that mean this model, but for its id."""
        routed = self._routing.aliases
        names = [name for name in card.aliases if name not in routed]
        return names + [name for name, model in routed.items() if model == card.id and name not in self.cards]

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
            "aliases": self._aliases(card),
            "default": self.is_default(card),
            "max_model_len": min((int(str(entry["context"])) for entry in backends), default=None),
            "max_output_tokens": card.max_output_tokens,
            "ready": bool(backends),
            "backends": backends,
            "loading": [
                {
                    "worker": worker,
                    "stage": loading.stage,
                    "fraction": loading.fraction,
                    "elapsed_s": loading.elapsed_s,
                }
                for worker, loading in self.loading(card.id)
            ],
            "failed": [{"worker": worker, "reason": reason} for worker, reason in self.failed(card.id).items()],
        }

    def describe_fully(self, card: ModelCard) -> dict[str, Any]:
        """A model as administrators see it."""
        options = card.model_dump(mode="json", exclude={"configured", "load_count", "default"})
        return {
            **self.describe(card),
            "state": str(self.outcome(card)),
            "origin": card.origin,
            "source": card.source,
            "options": {name: value for name, value in options.items() if name not in _NO_OPTIONS},
        }


def _is_load(model: ServedModel, card: ModelCard, key: str) -> bool:
    """Whether this is what the card asks for; a worker with a configuration of its own goes by that."""
    return model.id == card.id and (model.load_key == key or (not model.load_key and card.origin == "config"))
