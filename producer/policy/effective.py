"""What holds: the configuration file and the stored document, laid over each other. Pure."""

from dataclasses import dataclass
from typing import Literal

from producer.config import EdgeConfig, KeySpec
from schemas.policy import (
    GuardrailsPolicy,
    LimitsPolicy,
    OidcPolicy,
    PolicyDocument,
    RevokedKey,
    RoutingPolicy,
    StoredKey,
)

Source = Literal["file", "store"]


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """One moment's rules. `revision` is the stored document's, 0 without one.

    File keys and stored keys add up, but for those whose digest is in `revoked`; each section has one source. The
    well-known key is not among them once anybody else may be.
    """

    revision: int
    file_keys: tuple[KeySpec, ...]
    stored_keys: tuple[StoredKey, ...]
    revoked: dict[str, RevokedKey]
    limits: LimitsPolicy
    guardrails: GuardrailsPolicy
    oidc: OidcPolicy | None
    routing: RoutingPolicy
    sources: dict[str, Source]


def lay_over(config: EdgeConfig, document: PolicyDocument | None, revision: int = 0) -> EffectivePolicy:
    """The rules of `document` where it decides, else those of the file."""
    stored = document if document is not None else PolicyDocument()
    others_may_call = stored.decides_on_keys or stored.oidc is not None or config.oidc is not None
    decided = {"limits": stored.limits, "guardrails": stored.guardrails, "oidc": stored.oidc, "routing": stored.routing}
    return EffectivePolicy(
        revision=revision,
        file_keys=tuple(key for key in config.keys if not (key.is_default and others_may_call)),
        stored_keys=tuple(stored.api_keys.values()),
        revoked=stored.revoked,
        limits=stored.limits if stored.limits is not None else config.limits,
        guardrails=stored.guardrails if stored.guardrails is not None else config.guardrails,
        oidc=stored.oidc if stored.oidc is not None else config.oidc,
        # Without a decision the models' cards say it, which come from the file.
        routing=stored.routing if stored.routing is not None else RoutingPolicy(),
        sources={name: "file" if value is None else "store" for name, value in decided.items()},
    )
