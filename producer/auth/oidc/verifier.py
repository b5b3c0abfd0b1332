"""Verifies the tokens of the issuer that the policy names at the moment."""

import time
from collections.abc import Callable

from producer.auth.oidc.claims import check_claims, identity_of
from producer.auth.oidc.discovery import Issuer
from producer.auth.oidc.key_cache import KeyCache, Timing
from producer.auth.oidc.token import check_signature, looks_like_token, read_token, refused
from producer.policy.effective import EffectivePolicy
from schemas.oidc_policy import OidcPolicy
from schemas.requests import Identity


class OidcVerifier:
    """A TokenVerifier. While no issuer is configured, it recognises nothing."""

    def __init__(
        self,
        on_answer: Callable[[bool], None] = lambda _: None,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._on_answer = on_answer
        self._timing = timing
        self._clock = clock
        self._policy: OidcPolicy | None = None
        self._keys: KeyCache | None = None
        self._former: list[KeyCache] = []
        self._has_started = False

    @property
    def policy(self) -> OidcPolicy | None:
        """What is verified now."""
        return self._policy

    def learn(self, policy: EffectivePolicy) -> None:
        """From now on these rules hold. Keys are forgotten when the issuer is another."""
        self._policy = policy.oidc
        issuer = None if policy.oidc is None else policy.oidc.issuer
        if self._keys is not None and self._keys.issuer != issuer:
            # Requests may be waiting for it.
            self._former = [each for each in (*self._former, self._keys) if each.is_asking]
            self._keys = None
        if issuer is not None and self._keys is None:
            self._keys = KeyCache(issuer, Issuer(issuer).load_keys, self._on_answer, self._timing)
            if self._has_started:
                self._keys.renew()

    def start(self) -> None:
        """Ask for the keys before the first token comes. Does not wait."""
        self._has_started = True
        if self._keys is not None:
            self._keys.renew()

    async def close(self) -> None:
        for keys in (*self._former, *([self._keys] if self._keys is not None else [])):
            await keys.close()

    def recognises(self, secret: str) -> bool:
        return self._policy is not None and looks_like_token(secret)

    async def verify(self, secret: str) -> Identity:
        """The signature is checked last, since nothing else may need the issuer: nobody makes us ask it for nothing.

        Raises ServingError: 401 that says what is wrong, 503 when the issuer's keys cannot be had.
        """
        policy, keys = self._policy, self._keys
        if policy is None or keys is None:
            raise refused("No tokens are taken here.")
        token = read_token(secret, policy.algorithms, policy.token_types)
        check_claims(token.claims, policy, self._clock())
        identity = identity_of(token.claims, policy)
        check_signature(token, await keys.find(token.kid, token.algorithm))
        return identity
