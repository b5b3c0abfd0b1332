"""New API keys: `ifx_<id>_<secret>`, the secret of 256 random bits. The id is no secret: lists and logs call it so."""

import secrets
from typing import NamedTuple

_ID_BYTES = 6
_SECRET_BYTES = 32


class NewKey(NamedTuple):
    id: str
    text: str


def mint_key(key_id: str | None = None) -> NewKey:
    """A fresh key, or a fresh secret for an id that is there."""
    key_id = key_id if key_id is not None else secrets.token_hex(_ID_BYTES)
    return NewKey(key_id, f"ifx_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}")
