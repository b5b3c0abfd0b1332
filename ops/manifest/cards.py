"""The models of a manifest as cards in the registry."""

from collections.abc import Sequence
from typing import Literal

from broker.registry import Registry
from ops.serving.registering import model_card
from ops.serving.topology import register_card
from ops.settings.settings import ModelSettings

ORIGIN: Literal["manifest"] = "manifest"


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
            await register_card(registry, model_card(model, origin=ORIGIN))
    wanted = {model.id for model in models}
    for card in list(registry.models.values()):
        if card.origin == ORIGIN and card.id not in wanted:
            await registry.delete_model(card.id)
    return skipped


_WHO = {"config": "configuration", "admin": "administrators"}
