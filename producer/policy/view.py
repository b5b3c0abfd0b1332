"""What administrators are shown of the policy."""

from collections.abc import Sequence
from typing import Any

from producer.policy.effective import EffectivePolicy
from producer.policy.store import PolicyStore, Version


def describe(policy: EffectivePolicy, store: PolicyStore) -> dict[str, Any]:
    """The rules that hold, section by section, with their sources. No digest of a key is in it."""
    document = store.document
    sections = {
        "limits": policy.limits,
        "guardrails": policy.guardrails,
        "oidc": policy.oidc,
        "routing": policy.routing,
    }
    return {
        "object": "policy",
        "version": store.version,
        "changed_at": document.changed_at if store.version else None,
        "changed_by": document.changed_by if store.version else None,
        "encryption": store.encryption,
        "fault": str(store.fault) if store.fault is not None else None,
        "api_keys": {
            "file": len(policy.file_keys),
            "store": len(policy.stored_keys),
            "revoked": len(policy.revoked),
        },
        "sections": {
            name: {"source": policy.sources[name], "value": None if value is None else value.model_dump(mode="json")}
            for name, value in sections.items()
        },
    }


def describe_versions(versions: Sequence[Version], current: int) -> list[dict[str, Any]]:
    return [_describe_version(version, current) for version in versions]


def _describe_version(version: Version, current: int) -> dict[str, Any]:
    opened = version.opened
    document = opened.document if opened is not None else None
    return {
        "object": "policy.version",
        "version": opened.version if opened is not None else None,
        "changed_at": int(version.stored_at),
        "changed_by": document.changed_by if document is not None else None,
        "action": document.action if document is not None else None,
        "target": document.target if document is not None else None,
        "is_current": opened is not None and opened.version == current,
        "fault": version.fault,
    }
