"""What can be done to API keys, as pure changes of the document."""

import time
from typing import Any

from producer.policy.change import Change
from schemas.errors import ErrorCode, ServingError
from schemas.policy import PolicyDocument, RevokedKey, StoredKey


def issue(key: StoredKey) -> Change:
    """Raises ServingError when another key has its name."""

    def change(document: PolicyDocument) -> PolicyDocument:
        _require_free(document, key.name, key.id)
        return _with_key(document, key)

    return change


def update(key_id: str, changes: dict[str, Any]) -> Change:
    """Raises ServingError when there is no such key any more, or another has its new name."""

    def change(document: PolicyDocument) -> PolicyDocument:
        key = find(document, key_id).model_copy(update=changes)
        _require_free(document, key.name, key.id)
        return _with_key(document, key)

    return change


def rotate(key_id: str, digest: str, grace_s: int) -> Change:
    """The secret of `digest` from now on; the one before for `grace_s` seconds more. One before that ends now."""

    def change(document: PolicyDocument) -> PolicyDocument:
        key = find(document, key_id)
        previous = {"previous_digest": key.digest, "previous_until": int(time.time()) + grace_s}
        if not grace_s:
            previous = {"previous_digest": None, "previous_until": None}
        return _with_key(document, key.model_copy(update={"digest": digest, **previous}))

    return change


def revoke(key_id: str) -> Change:
    """Neither of its secrets opens anything again, and its id is not used again."""

    def change(document: PolicyDocument) -> PolicyDocument:
        key = find(document, key_id)
        revoked = RevokedKey(id=key.id, name=key.name, revoked_at=int(time.time()))
        digests = [digest for digest in (key.digest, key.previous_digest) if digest is not None]
        others = {each: stored for each, stored in document.api_keys.items() if each != key.id}
        return document.model_copy(
            update={"api_keys": others, "revoked": document.revoked | dict.fromkeys(digests, revoked)}
        )

    return change


def revoke_digest(digest: str, name: str) -> Change:
    """For a key that is configured elsewhere."""

    def change(document: PolicyDocument) -> PolicyDocument:
        revoked = RevokedKey(name=name, revoked_at=int(time.time()))
        return document.model_copy(update={"revoked": {digest: revoked, **document.revoked}})

    return change


def keep_revoked(earlier: PolicyDocument, current: PolicyDocument) -> PolicyDocument:
    """The earlier document, without giving any secret back its force that has lost it since.

    What was revoked in either stays revoked, and a key that was rotated since keeps its newer secret.
    """
    revoked = {**earlier.revoked, **current.revoked}
    gone = {each.id for each in revoked.values() if each.id}
    keys = {}
    for key_id, key in earlier.api_keys.items():
        now = current.api_keys.get(key_id)
        if now is not None:
            secret = {name: getattr(now, name) for name in ("digest", "previous_digest", "previous_until")}
            key = key.model_copy(update=secret)
        if key_id not in gone and key.digest not in revoked:
            keys[key_id] = key
    return earlier.model_copy(update={"api_keys": keys, "revoked": revoked})


def find(document: PolicyDocument, key_id: str) -> StoredKey:
    """By id, or by name. Raises ServingError (404)."""
    key = document.api_keys.get(key_id)
    if key is not None:
        return key
    for key in document.api_keys.values():
        if key.name == key_id:
            return key
    raise not_found(key_id)


def not_found(key_id: str) -> ServingError:
    return ServingError(ErrorCode.API_KEY_NOT_FOUND, f"There is no API key '{key_id[:200]}' in the store.")


def _require_free(document: PolicyDocument, name: str, key_id: str) -> None:
    if any(key.name == name and key.id != key_id for key in document.api_keys.values()):
        raise ServingError(
            ErrorCode.INVALID_PARAMETER, f"'name' is taken: there is a key '{name}' already.", param="name"
        )


def _with_key(document: PolicyDocument, key: StoredKey) -> PolicyDocument:
    return document.model_copy(update={"api_keys": {**document.api_keys, key.id: key}})
