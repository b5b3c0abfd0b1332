"""Secrets of the audit record, derived from the pepper: whoever has only the records can neither forge nor guess."""

import hashlib
import hmac


class AuditKeys:
    """`seal` makes a record's code, `hide` stands in for a text. `key_id` tells records of another pepper apart."""

    def __init__(self, pepper: bytes) -> None:
        self._chain = hmac.digest(pepper, b"inferflux audit chain 1", hashlib.sha256)
        self._content = hmac.digest(pepper, b"inferflux audit content 1", hashlib.sha256)
        self.key_id = hmac.digest(self._chain, b"key id", hashlib.sha256).hex()[:8]

    def seal(self, text: bytes) -> str:
        return hmac.digest(self._chain, text, hashlib.sha256).hex()

    def hide(self, text: str) -> str:
        """A keyed hash: equal texts have equal ones, and nobody without the pepper can try texts out."""
        return hmac.digest(self._content, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()
