"""No change through the API takes away the last key that could make another."""

import time
from collections.abc import Callable

from producer.config import Scope
from producer.policy.change import Change
from producer.policy.effective import lay_over
from producer.policy.live import LivePolicy
from schemas.errors import ErrorCode, ServingError
from schemas.policy import OidcPolicy, PolicyDocument

# What decides whether a token is taken, and whether it opens administration.
_DOOR = (
    "issuer",
    "audience",
    "algorithms",
    "token_types",
    "subject_claim",
    "scopes_claim",
    "scope_map",
    "allow_admin",
    "resource",
)


class Lockout:
    """`digest_of` gives the hex digest of a secret."""

    def __init__(self, live: LivePolicy, digest_of: Callable[[str], str]) -> None:
        self._live = live
        self._digest_of = digest_of

    def guarded(self, change: Change) -> Change:
        """`change`, refused (ServingError, 400) when nobody could administer after it."""

        def checked(document: PolicyDocument) -> PolicyDocument:
            following = change(document)
            if not self.has_administrator(following, before=document):
                raise ServingError(
                    ErrorCode.INVALID_PARAMETER,
                    "After this nobody could administer any more: issue a key with the scope 'admin' first. "
                    "(The well-known key of a fresh installation ends with the first key that is issued.)",
                )
            return following

        return checked

    def has_administrator(self, document: PolicyDocument, before: PolicyDocument | None = None) -> bool:
        """Whether a key opens administration under `document`, or tokens may.

        Tokens count where they are taken as they are under `before`: nobody has shown one to an issuer's new address.
        """
        policy, now = lay_over(self._live.config, document), time.time()
        known = lay_over(self._live.config, before).oidc if before is not None else policy.oidc
        if policy.oidc is not None and policy.oidc.allow_admin and _take_alike(policy.oidc, known):
            return True
        in_file = (self._digest_of(spec.key) for spec in policy.file_keys if Scope.ADMIN in spec.scopes)
        return any(digest not in policy.revoked for digest in in_file) or any(
            Scope.ADMIN in key.scopes and (key.expires_at is None or key.expires_at > now) for key in policy.stored_keys
        )


def _take_alike(one: OidcPolicy, other: OidcPolicy | None) -> bool:
    return other is not None and all(getattr(one, name) == getattr(other, name) for name in _DOOR)
