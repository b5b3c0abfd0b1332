"""API keys: who a presented secret belongs to.

A key is 256 random bits or what the operator chose, so a keyed hash is enough: HMAC-SHA256 with a pepper that never
leaves the machine. Secrets are not kept.
"""

import hashlib
import hmac
import math
import time
from bisect import bisect_right
from typing import NamedTuple

from producer.config import KeySpec, Scope
from producer.policy.effective import EffectivePolicy
from schemas.errors import ErrorCode, ServingError
from schemas.policy import StoredKey
from schemas.requests import Grants, Identity, PriorityClass


class _Known(NamedTuple):
    digest: bytes
    identity: Identity
    until: float  # Unix time from which on it is expired


class ApiKeys:
    """The keys that hold now. `identify` is the only question; the answer carries no secret."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._known: dict[bytes, _Known] = {}
        self._expiries: list[float] = []
        self._owners: dict[str, float] = {}

    def learn(self, policy: EffectivePolicy) -> None:
        """From now on these keys hold and no others."""
        known = [self._of_file(spec) for spec in policy.file_keys]
        for key in policy.stored_keys:
            known += _of_store(key)
        # Only a part of the digest leads to the entry; the whole of it is compared in constant time.
        self._known = {each.digest[:8]: each for each in known if each.digest.hex() not in policy.revoked}
        self._expiries = sorted(each.until for each in self._known.values() if each.until < math.inf)
        self._owners = {}
        for each in self._known.values():
            owner = each.identity.owner
            self._owners[owner] = max(each.until, self._owners.get(owner, 0.0))

    def identify(self, secret: str) -> Identity | None:
        """The identity of a presented key; None when nobody has it. Time does not depend on how much of it is right.

        Raises ServingError (expired_token) when it was somebody's.
        """
        digest = self.digest(secret)
        known = self._known.get(digest[:8])
        if known is None or not hmac.compare_digest(known.digest, digest):
            return None
        if time.time() >= known.until:
            raise ServingError(ErrorCode.EXPIRED_TOKEN, "The API key has expired.")
        return known.identity

    def holds(self, digest: bytes) -> bool:
        """Whether a secret with this digest opens anything now."""
        known = self._known.get(digest[:8])
        return known is not None and known.digest == digest and time.time() < known.until

    def has_key(self, owner: str) -> bool:
        """Whether somebody of this name has a key that holds now."""
        return time.time() < self._owners.get(owner, 0.0)

    def next_expiry(self) -> float | None:
        """Unix time when the next of the keys expires that hold now; None when none ever does."""
        place = bisect_right(self._expiries, time.time())
        return self._expiries[place] if place < len(self._expiries) else None

    @property
    def pepper_check(self) -> str:
        """Tells whether two edges have the same pepper, and not what it is."""
        return hmac.digest(self._pepper, b"\x00inferflux pepper check", hashlib.sha256).hex()

    def digest(self, secret: str) -> bytes:
        """What is kept of a secret."""
        return hmac.digest(self._pepper, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)

    def owner_of(self, spec: KeySpec) -> str:
        """What a configured key is called."""
        return spec.name or f"k_{self.digest(spec.key).hex()[:8]}"

    def _of_file(self, spec: KeySpec) -> _Known:
        digest, owner = self.digest(spec.key), self.owner_of(spec)
        scopes = tuple(str(scope) for scope in spec.scopes)
        return _Known(digest, _identity(owner, spec.tenant, scopes, spec.models, spec.ceiling), math.inf)


def _of_store(key: StoredKey) -> list[_Known]:
    identity = _identity(key.id, key.tenant, key.scopes, key.models, key.ceiling)
    until = math.inf if key.expires_at is None else key.expires_at
    known = [_Known(bytes.fromhex(key.digest), identity, until)]
    if key.previous_digest is not None:
        known.append(_Known(bytes.fromhex(key.previous_digest), identity, min(until, key.previous_until or 0)))
    return known


def _identity(
    owner: str, tenant: str, scopes: tuple[str, ...], models: tuple[str, ...], ceiling: PriorityClass | None
) -> Identity:
    if ceiling is None:
        ceiling = PriorityClass.HIGH if Scope.ADMIN in scopes else PriorityClass.NORMAL
    return Identity(owner=owner, tenant=tenant, scopes=scopes, grants=Grants(models=models, ceiling=ceiling))


def presented_key(authorization: str | None, x_api_key: str | None, api_key: str | None) -> str:
    """The secret in the headers of a call: bearer in any case, else `x-api-key`, else `api-key`.

    Raises ServingError (invalid_api_key) when there is none.
    """
    if authorization is not None:
        scheme, _, secret = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise ServingError(
                ErrorCode.INVALID_API_KEY, "The Authorization header must read 'Bearer' and then an API key."
            )
        return secret.strip()
    secret = (x_api_key or api_key or "").strip()
    if not secret:
        raise ServingError(
            ErrorCode.INVALID_API_KEY,
            "No API key was given. Send it as 'Authorization: Bearer KEY' (or as x-api-key or api-key).",
        )
    return secret
