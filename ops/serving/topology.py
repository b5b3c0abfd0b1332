"""Streams, consumers, buckets and model cards on the broker, as the settings want them. Role topology."""

from collections.abc import Sequence

from broker.registry import Registry
from broker.topology import Change, Topology
from ops.serving.registering import is_left_over, merged
from schemas.control import ModelCard


async def register(
    topology: Topology, registry: Registry, cards: Sequence[ModelCard], *, is_ours_alone: bool
) -> list[Change]:
    """Apply the topology and write the cards; `registry` is started on the way. Returns what was changed.

    What an administrator changed since is kept, see `registering.merged`. `is_ours_alone`: cards of an earlier
    configuration are taken out. Raises BrokerError.
    """
    # The buckets are part of the topology, so it comes before the registry that lives in them.
    changes = await topology.apply_streams()
    await registry.start()
    for card in cards:
        await register_card(registry, card)
    if is_ours_alone:
        ids = {card.id for card in cards}
        for card in list(registry.models.values()):
            if is_left_over(card, ids):
                await registry.delete_model(card.id)
    return changes + await topology.apply(list(registry.models.values()), registry.slots())


async def register_card(registry: Registry, card: ModelCard) -> None:
    """Write the card of a configured model, unless an administrator has had the last word. Raises BrokerError."""
    before = registry.models.get(card.id)
    written = await registry.change_model(card.id, lambda known: merged(card, known, registry.unloaded))
    if written is not None and written != before and written.default:
        await registry.set_default(card.id)


async def difference(topology: Topology, registry: Registry, cards: Sequence[ModelCard]) -> list[Change]:
    """What `register` would change. Changes nothing. Raises BrokerError."""
    changes = await topology.diff(cards, 0)
    if any(change.kind == "stream" and change.action == "create" for change in changes):
        return changes  # the registry's buckets may be among them
    await registry.start()
    models = {**registry.models, **{card.id: card for card in cards}}
    return await topology.diff(list(models.values()), registry.slots())
