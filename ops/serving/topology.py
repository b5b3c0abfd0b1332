"""Streams, consumers, buckets and model cards on the broker, as the settings want them. Role topology."""

from collections.abc import Sequence

from broker.registry import Registry
from broker.topology import Change, Topology
from schemas.control import ModelCard


async def register(
    topology: Topology, registry: Registry, cards: Sequence[ModelCard], *, is_ours_alone: bool
) -> list[Change]:
    """Apply the topology and write the cards; `registry` is started on the way. Returns what was changed.

    A card that was there keeps its date. `is_ours_alone`: cards of an earlier configuration are taken out. Raises
    BrokerError.
    """
    # The buckets are part of the topology, so it comes before the registry that lives in them.
    changes = await topology.apply_streams()
    await registry.start()
    for card in cards:
        known = registry.models.get(card.id)
        await registry.put_model(card if known is None else card.model_copy(update={"created": known.created}))
    if is_ours_alone:
        for model_id in set(registry.models) - {card.id for card in cards}:
            await registry.delete_model(model_id)
    return changes + await topology.apply(list(registry.models.values()), registry.slots())


async def difference(topology: Topology, registry: Registry, cards: Sequence[ModelCard]) -> list[Change]:
    """What `register` would change. Changes nothing. Raises BrokerError."""
    changes = await topology.diff(cards, 0)
    if any(change.kind == "stream" and change.action == "create" for change in changes):
        return changes  # the registry's buckets may be among them
    await registry.start()
    models = {**registry.models, **{card.id: card for card in cards}}
    return await topology.diff(list(models.values()), registry.slots())
