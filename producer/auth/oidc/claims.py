"""What the claims of a token say: whether it holds, and what it opens. Pure."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from producer.auth.oidc.token import refused
from schemas.errors import ErrorCode, ServingError
from schemas.oidc_policy import OidcPolicy
from schemas.oidc_rules import ADMIN, SCOPES
from schemas.requests import Grants, Identity, PriorityClass

OWNER_PREFIX = "oidc:"
_OWNER_DIGITS = 32
_MAX_TEXT = 256
_MAX_LIST = 256

Claims = Mapping[str, Any]


def check_claims(claims: Claims, policy: OidcPolicy, now: float) -> None:
    """Raises ServingError (401): another issuer's, for somebody else, expired, not valid yet, bound to a key."""
    if claims.get("iss") != policy.issuer:
        raise refused("The token is not from the issuer that this server trusts.")
    audience = claims.get("aud")
    if policy.audience != audience and not (isinstance(audience, list) and policy.audience in audience):
        raise refused("The token is not meant for this server: its audience (aud) is another.")
    expires = _time(claims, "exp")
    if expires is None:
        raise refused("The token does not say when it expires (exp).")
    if now >= expires + policy.leeway_s:
        raise ServingError(ErrorCode.EXPIRED_TOKEN, "The token has expired.")
    not_before = _time(claims, "nbf")
    if not_before is not None and now < not_before - policy.leeway_s:
        raise refused("The token is not valid yet (nbf).")
    if "cnf" in claims:
        raise refused("The token is bound to a key of its holder (cnf); only bearer tokens are taken here.")


def identity_of(claims: Claims, policy: OidcPolicy) -> Identity:
    """Who it is and what that opens. Raises ServingError (401) for a claim that cannot be read."""
    scopes = _scopes(claims, policy)
    ceiling = policy.ceiling
    if ceiling is None:
        ceiling = PriorityClass.HIGH if ADMIN in scopes else PriorityClass.NORMAL
    tenant = _find(claims, policy.tenant_claim)
    models = _find(claims, policy.models_claim)
    return Identity(
        owner=owner_of(policy.issuer, _text(_find(claims, policy.subject_claim), policy.subject_claim)),
        tenant="default" if tenant is None else _text(tenant, policy.tenant_claim),
        scopes=scopes,
        grants=Grants(models=("*",) if models is None else _words(models, policy.models_claim), ceiling=ceiling),
    )


def owner_of(issuer: str, subject: str) -> str:
    """The id of a subject: the same wherever it asks, another for every issuer, and no name of a key."""
    digest = hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()
    return OWNER_PREFIX + digest[:_OWNER_DIGITS]


def _scopes(claims: Claims, policy: OidcPolicy) -> tuple[str, ...]:
    value = _find(claims, policy.scopes_claim)
    words = () if value is None else _words(value, policy.scopes_claim)
    if policy.scope_map:
        words = tuple(scope for word in words for scope in policy.scope_map.get(word, ()))
    return tuple(scope for scope in SCOPES if scope in words and (scope != ADMIN or policy.allow_admin))


def _find(claims: Claims, name: str) -> Any:
    """A claim by its name, which may hold dots itself, or by a path with dots; None when there is none."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or not value.isprintable():
        raise refused(f"The token's claim '{name}' must be a text of 1 to {_MAX_TEXT} printable characters.")
    return value


def _words(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts, or one text with spaces between them."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or len(words) > _MAX_LIST:
        raise refused(f"The token's claim '{name}' must be a list of at most {_MAX_LIST} texts.")
    return tuple(_text(word, name) for word in words)


def _time(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refused(f"The token's claim '{name}' must be a number of seconds.")
    return float(value)
