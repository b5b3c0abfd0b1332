"""API keys: who a presented secret belongs to.

A key is 256 random bits or what the operator chose, so a keyed hash is enough: HMAC-SHA256 with a pepper that never
leaves the machine. Secrets are not kept.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import NamedTuple

from producer.config import KeySpec, Scope
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Grants, Identity, PriorityClass


class _Known(NamedTuple):
    digest: bytes
    identity: Identity


class ApiKeys:
    """The configured keys. `identify` is the only question; the answer carries no secret."""

    def __init__(self, specs: Iterable[KeySpec], pepper: bytes) -> None:
        self._pepper = pepper
        self._known: dict[bytes, _Known] = {}
        for spec in specs:
            digest = self._digest(spec.key)
            # Only a part of the digest leads to the entry; the whole of it is compared in constant time.
            self._known[digest[:8]] = _Known(digest, _identity(spec, digest))

    def identify(self, secret: str) -> Identity | None:
        """The identity of a presented key; None when nobody has it. Time does not depend on how much of it is right."""
        digest = self._digest(secret)
        known = self._known.get(digest[:8])
        if known is None or not hmac.compare_digest(known.digest, digest):
            return None
        return known.identity

    def _digest(self, secret: str) -> bytes:
        return hmac.digest(self._pepper, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


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


def _identity(spec: KeySpec, digest: bytes) -> Identity:
    ceiling = spec.ceiling
    if ceiling is None:
        ceiling = PriorityClass.HIGH if Scope.ADMIN in spec.scopes else PriorityClass.NORMAL
    return Identity(
        owner=spec.name or f"k_{digest.hex()[:8]}",
        tenant=spec.tenant,
        scopes=tuple(str(scope) for scope in spec.scopes),
        grants=Grants(models=spec.models, ceiling=ceiling),
    )
