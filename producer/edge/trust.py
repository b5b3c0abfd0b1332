"""Who may do what, and what is recorded of it: all that follows the stored policy, built together."""

from typing import NamedTuple

from broker.audit_stream import AuditStream
from broker.connection import Connection
from producer.audit.audit import Audit
from producer.auth.api_keys import ApiKeys
from producer.auth.authenticator import Authenticator
from producer.auth.oidc.verifier import OidcVerifier
from producer.config import EdgeConfig
from producer.edge.background import Background
from producer.guardrails.guardrails import Guardrails
from producer.metrics import EdgeMetrics
from producer.policy.live import LivePolicy
from producer.policy.lockout import Lockout
from producer.policy.store import PolicyStore


class Trust(NamedTuple):
    """`policy_store` is still to be started."""

    policy: LivePolicy
    policy_store: PolicyStore
    lockout: Lockout
    keys: ApiKeys
    authenticator: Authenticator
    oidc: OidcVerifier
    audit: Audit
    guardrails: Guardrails


def build_trust(config: EdgeConfig, connection: Connection, metrics: EdgeMetrics, background: Background) -> Trust:
    """What has to learn of a change is told in the order in which it stands here."""
    policy, keys = LivePolicy(config), ApiKeys(config.pepper)
    policy.on_change(keys.learn)
    audit = Audit(AuditStream(connection), config.audit, config.pepper, config.edge_id, metrics.audit_lost.inc)
    guardrails = Guardrails(metrics, background, audit)
    policy.on_change(guardrails.learn)
    policy.on_prepare(guardrails.prepare)
    oidc = OidcVerifier(metrics.issuer_answered)
    policy.on_change(oidc.learn)
    return Trust(
        policy=policy,
        policy_store=PolicyStore(connection, policy, config.policy, keys.pepper_check, audit),
        lockout=Lockout(policy, lambda secret: keys.digest(secret).hex()),
        keys=keys,
        authenticator=Authenticator(keys, (oidc,)),
        oidc=oidc,
        audit=audit,
        guardrails=guardrails,
    )
