"""From a model's settings to its card in the `models` bucket, and what becomes of a card that is there already."""

import hashlib
import time
from collections.abc import Mapping
from typing import Literal

from ops.settings.settings import ModelSettings
from schemas.control import ModelCard

# What says where a card comes from, and not how its model is served.
_BOOKKEEPING = {"created", "origin", "configured", "load_count"}


def model_card(
    model: ModelSettings,
    *,
    origin: Literal["config", "admin", "manifest"] = "config",
    backend: str = "auto",
    now: int | None = None,
) -> ModelCard:
    """The card of a configured model. `backend` is the flag's and goes over the model's own. Reads no file."""
    card = ModelCard.model_validate(
        {
            "id": model.id,
            "source": model.source,
            "backend": model.backend if backend == "auto" else backend,
            "default": model.default,
            "aliases": model.aliases,
            "created": int(time.time()) if now is None else now,
            "context": model.context,
            "sequences": model.sequences,
            "threads": model.threads,
            "gpu_layers": model.gpu_layers,
            "kv_type": model.kv_type,
            "batch_tokens": model.batch_tokens,
            "chat_template": model.chat_template,
            "max_output_tokens": model.max_output_tokens,
            "queue_max": model.queue_max,
            "queue_max_tokens": model.queue_max_tokens or 0,
            "no_worker": model.no_worker,
            "origin": origin,
        }
    )
    return card.model_copy(update={"configured": digest(card)})


def digest(card: ModelCard) -> str:
    """Of what was configured, so that a change of it is seen at the next start. An option of a newer release that is
    not used changes nothing.
    """
    text = card.model_dump_json(exclude=_BOOKKEEPING, exclude_defaults=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def merged(wanted: ModelCard, known: ModelCard | None, unloaded: Mapping[str, str]) -> ModelCard | None:
    """What the bucket should hold for a configured model; None when it is to stay unloaded.

    The last word counts: what an administrator changed or unloaded stays so until the configuration of that model
    changes. `unloaded` is, by model, the digest of the configuration that was unloaded.
    """
    if known is None:
        return None if unloaded.get(wanted.id) == wanted.configured else wanted
    if known.configured == wanted.configured:
        return known
    kept = {"created": known.created, "load_count": known.load_count}
    return wanted.model_copy(update=kept)


def is_left_over(card: ModelCard, configured_ids: set[str]) -> bool:
    """Whether a card comes from a configuration that no longer has the model."""
    return (
        card.id not in configured_ids
        and card.origin != "manifest"
        and (card.origin == "config" or bool(card.configured))
    )
