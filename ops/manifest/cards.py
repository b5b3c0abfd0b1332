"""The models of a manifest as cards in the registry."""

from collections.abc import Sequence

from broker.registry import Registry
from ops.serving.plan import model_card
from ops.settings.settings import ModelSettings
from schemas.control import ModelCard

ORIGIN = "manifest"


async def register_all(registry: Registry, models: Sequence[ModelSettings]) -> dict[str, str]:
    """Make the registry hold these models of the manifest and no others of it. Raises BrokerError.

    A model that the configuration or an administrator has registered is left as it is; returns why, by id.
    """
    skipped: dict[str, str] = {}
    for model in models:
        known = registry.models.get(model.id)
        if known is not None and known.origin != ORIGIN:
            skipped[model.id] = f"{model.id!r} is registered by the {_WHO[known.origin]} already"
        else:
            await registry.put_model(_card(model, known))
    wanted = {model.id for model in models}
    for card in list(registry.models.values()):
        if card.origin == ORIGIN and card.id not in wanted:
            await registry.delete_model(card.id)
    return skipped


_WHO = {"config": "configuration", "admin": "administrators"}


def _card(model: ModelSettings, known: ModelCard | None) -> ModelCard:
    """As the manifest wants it; one that is there keeps its date."""
    card = model_card(model, model.backend)
    created = card.created if known is None else known.created
    return card.model_copy(update={"origin": ORIGIN, "created": created})
