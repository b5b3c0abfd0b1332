"""The public keys of an issuer, by their ids. What may not verify a signature is left out."""

from collections.abc import Mapping
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

PublicKey = RSAKey | ECKey | OKPKey
KEY_TYPES: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
# Which type of key an algorithm needs, by the first letters of its name.
_TYPE_OF_ALGORITHM = {"RS": "RSA", "ES": "EC", "Ed": "OKP"}
_MAX_KEYS = 256
_MIN_RSA_BITS = 2048
# Of a published key only these are read; a private part that slipped in is not.
_PUBLIC_FIELDS = ("kty", "kid", "use", "alg", "crv", "x", "y", "n", "e")


class KeySet:
    """Keys by id. Symmetric keys, those for encryption, those without an id and weak ones are not in it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        entries = document.get("keys")
        self._keys: dict[tuple[str, str], PublicKey] = {}
        for entry in entries[:_MAX_KEYS] if isinstance(entries, list) else ():
            key = _read_key(entry)
            if key is not None:
                self._keys[str(entry["kid"]), key.key_type] = key

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str, algorithm: str) -> PublicKey | None:
        """The key that such a token must have been signed with; None when there is no such one."""
        key = self._keys.get((kid, _TYPE_OF_ALGORITHM[algorithm[:2]]))
        if key is None or key.get("alg") not in (None, algorithm):
            return None
        return key


def _read_key(entry: Any) -> PublicKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    operations = entry.get("key_ops")
    if entry.get("use") not in (None, "sig") or (isinstance(operations, list) and "verify" not in operations):
        return None
    key_type = KEY_TYPES.get(str(entry.get("kty")))
    if key_type is None:
        return None
    try:
        key = key_type.import_key({name: entry[name] for name in _PUBLIC_FIELDS if name in entry})
        is_weak = isinstance(key, RSAKey) and key.public_key.key_size < _MIN_RSA_BITS
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if is_weak else key
