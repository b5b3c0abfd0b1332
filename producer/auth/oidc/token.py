"""A JSON Web Token in parts: what it says of itself, and whether a key signed it."""

import base64
import binascii
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import orjson
from joserfc.errors import BadSignatureError, JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact

from producer.auth.oidc.key_set import PublicKey
from schemas.errors import ErrorCode, ServingError
from schemas.oidc_rules import ALGORITHMS

MAX_TOKEN_CHARS = 16 * 1024
_MAX_KID_CHARS = 512
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Token(NamedTuple):
    """A token as it came. Nothing in it is true before `check_signature` passed."""

    text: str
    algorithm: str
    kid: str
    claims: dict[str, Any]


class _Only(JWSRegistry):
    """One algorithm and no other, without a warning for those that have a newer name."""

    max_header_length = MAX_TOKEN_CHARS

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=(algorithm,), strict_check_header=False)
        self._algorithm = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._algorithm:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_REGISTRIES = {algorithm: _Only(algorithm) for algorithm in ALGORITHMS}


def looks_like_token(secret: str) -> bool:
    """Whether it begins as the base64 of `{"` does and has three parts."""
    return secret.startswith("eyJ") and secret.count(".") == 2


def read_token(text: str, algorithms: Collection[str], types: Collection[str]) -> Token:
    """Take a token apart and check its header. Raises ServingError (401)."""
    if len(text) > MAX_TOKEN_CHARS:
        raise refused(f"The token is longer than {MAX_TOKEN_CHARS} characters.")
    if _COMPACT.fullmatch(text) is None:
        raise refused("The token is not a signed JSON Web Token in its compact form.")
    header_text, claims_text, _ = text.split(".")
    header = _read_object(header_text, "header")
    claims = _read_object(claims_text, "payload")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise refused(f"The token must be signed with {' or '.join(algorithms)}.")
    if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID_CHARS:
        raise refused("The token does not name the key it is signed with (kid).")
    if not {"crit", "b64"}.isdisjoint(header):
        raise refused("The token's header has an extension that is not known here.")
    if not _is_of_type(header.get("typ", "JWT"), types):
        raise refused(f"The token's header must call it {' or '.join(types)} (typ).")
    return Token(text, algorithm, kid, claims)


def check_signature(token: Token, key: PublicKey) -> None:
    """Raises ServingError (401) unless `key` signed exactly this."""
    try:
        deserialize_compact(token.text, key, registry=_REGISTRIES[token.algorithm])
    except BadSignatureError:
        raise refused("The token's signature is wrong.") from None
    except (JoseError, ValueError, TypeError):
        raise refused("The token's signature cannot be checked with the key it names.") from None


def refused(message: str) -> ServingError:
    return ServingError(ErrorCode.INVALID_TOKEN, message)


def _read_object(text: str, part: str) -> dict[str, Any]:
    try:
        value = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        value = None
    if not isinstance(value, dict):
        raise refused(f"The token's {part} is not a JSON object.")
    return value


def _is_of_type(typ: Any, types: Collection[str]) -> bool:
    """Names of types are those of media types: in any case, `application/` may be left out."""
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in {each.lower() for each in types}
