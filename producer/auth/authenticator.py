"""Who presents a secret: an API key first, then whatever else can tell."""

from collections.abc import Sequence
from typing import Protocol

from producer.auth.api_keys import ApiKeys
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Identity


class TokenVerifier(Protocol):
    """Knows one kind of token."""

    def recognises(self, secret: str) -> bool:
        """Whether it looks like such a token. Costs nothing."""

    async def verify(self, secret: str) -> Identity:
        """Whose it is. Raises ServingError (401) that says what is wrong, without the token."""


class Authenticator:
    def __init__(self, keys: ApiKeys, verifiers: Sequence[TokenVerifier] = ()) -> None:
        self._keys = keys
        self._verifiers = verifiers

    def key_digest(self, secret: str) -> bytes | None:
        """What is kept of an API key that holds; None for anything else."""
        digest = self._keys.digest(secret)
        return digest if self._keys.holds(digest) else None

    async def identify(self, secret: str) -> Identity:
        """Raises ServingError (401)."""
        identity = self._keys.identify(secret)
        if identity is not None:
            return identity
        for verifier in self._verifiers:
            if verifier.recognises(secret):
                return await verifier.verify(secret)
        raise ServingError(ErrorCode.INVALID_API_KEY, "The API key is not known here.")
