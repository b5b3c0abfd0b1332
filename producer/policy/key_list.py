"""API keys as administrators see them: those of the file, those of the store, and those that were revoked."""

import time
from collections.abc import Iterable
from typing import Any

from producer.auth.api_keys import ApiKeys
from producer.config import KeySpec
from producer.policy.effective import EffectivePolicy
from schemas.errors import ErrorCode, ServingError
from schemas.policy import RevokedKey, StoredKey


def now() -> int:
    return int(time.time())


def views(policy: EffectivePolicy, configured: Iterable[KeySpec], keys: ApiKeys) -> list[dict[str, Any]]:
    """Those that hold first. A key of the file that was revoked is shown once, as revoked."""
    held = [view_of_file(spec, keys) for spec in policy.file_keys if keys.digest(spec.key).hex() not in policy.revoked]
    held += [view_of_stored(key) for key in policy.stored_keys]
    in_file = {keys.digest(spec.key).hex() for spec in configured}
    revoked = {each.id or digest: _view_of_revoked(digest, each, in_file) for digest, each in policy.revoked.items()}
    return held + list(revoked.values())


def view_of_stored(key: StoredKey) -> dict[str, Any]:
    expired = key.expires_at is not None and key.expires_at <= now()
    view = key.model_dump(mode="json", exclude={"digest", "previous_digest"})
    return {"object": "api_key", "source": "store", "status": "expired" if expired else "active", **view} | {
        "revoked_at": None
    }


def view_of_file(spec: KeySpec, keys: ApiKeys) -> dict[str, Any]:
    owner = keys.owner_of(spec)
    return {
        "object": "api_key",
        "id": owner,
        "name": owner,
        "source": "file",
        "status": "active",
        "scopes": [str(scope) for scope in spec.scopes],
        "tenant": spec.tenant,
        "models": list(spec.models),
        "ceiling": spec.ceiling,
        "limits": None if spec.limits is None else spec.limits.model_dump(),
        "created_at": None,
        "expires_at": None,
        "previous_until": None,
        "revoked_at": None,
    }


def find_in_file(wanted: str, specs: Iterable[KeySpec], keys: ApiKeys) -> KeySpec | None:
    return next((spec for spec in specs if keys.owner_of(spec) == wanted), None)


def require_free_in_file(name: str, specs: Iterable[KeySpec], keys: ApiKeys) -> None:
    """Raises ServingError (400) when a configured key is called so: both would be one owner."""
    if find_in_file(name, specs, keys) is not None:
        raise ServingError(
            ErrorCode.INVALID_PARAMETER, f"'name' is taken: a configured key is called '{name}'.", param="name"
        )


def _view_of_revoked(digest: str, revoked: RevokedKey, in_file: set[str]) -> dict[str, Any]:
    return {
        "object": "api_key",
        "id": revoked.id or revoked.name,
        "name": revoked.name,
        "source": "file" if digest in in_file or not revoked.id else "store",
        "status": "revoked",
        "scopes": [],
        "tenant": "",
        "models": [],
        "ceiling": None,
        "limits": None,
        "created_at": None,
        "expires_at": None,
        "previous_until": None,
        "revoked_at": revoked.revoked_at,
    }
