"""Opens and seals policy documents with the secret of this process. Keys are derived in a thread, once a salt."""

import asyncio
from typing import NamedTuple

from pydantic import ValidationError

from producer.policy.envelope import Derivation, read_header, seal, unseal
from producer.policy.errors import Damaged, NoSecret
from producer.policy.secret import Secret
from schemas.policy import PolicyDocument

_MAX_KEYS = 8


class Opened(NamedTuple):
    """A document that was opened. `version` counts its changes, over rollbacks and imports too."""

    document: PolicyDocument
    version: int
    derivation: Derivation


class Sealer:
    """`secret` None opens nothing, and seals nothing."""

    def __init__(self, secret: Secret | None) -> None:
        self.secret = secret
        self._keys: dict[Derivation, bytes] = {}

    async def open(self, envelope: bytes) -> Opened:
        """Raises Damaged, WrongSecret, NoSecret."""
        header = read_header(envelope)
        plaintext = unseal(envelope, header, await self._key(header.derivation))
        try:
            document = PolicyDocument.model_validate_json(plaintext)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(step) for step in first["loc"])
            raise Damaged(f"this version does not understand it: {place}: {first['msg']}") from None
        return Opened(document, header.version, header.derivation)

    async def seal(self, document: PolicyDocument, version: int, derivation: Derivation | None) -> bytes:
        """`derivation` is that of the version before, None for a fresh one. Raises NoSecret, WrongSecret."""
        if self.secret is None:
            raise NoSecret("there is no passphrase")
        used = derivation if derivation is not None else Derivation.fresh(self.secret.kind)
        return seal(document.model_dump_json().encode(), version, used, await self._key(used))

    async def _key(self, derivation: Derivation) -> bytes:
        if self.secret is None:
            raise NoSecret(f"it is encrypted with a {derivation.kind.title}, and there is none here")
        key = self._keys.get(derivation)
        if key is None:
            key = await asyncio.to_thread(derivation.key, self.secret)
            if len(self._keys) >= _MAX_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[derivation] = key
        return key
