"""Ids of processes. They become parts of subjects, so only some characters can be used."""

import re
import secrets

from ops.errors import CannotStart

_VALID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def new_id(prefix: str) -> str:
    """An id no earlier process had: whoever asks for a dead one by its id must not be answered by its successor."""
    return f"{prefix}-{secrets.token_hex(4)}"


def process_id(prefix: str, given: str | None) -> str:
    """The given id, else a fresh one. Raises CannotStart when it has other characters than letters, digits, _, -."""
    if given is None:
        return new_id(prefix)
    if not _VALID.fullmatch(given):
        raise CannotStart(f"id {given!r}: letters, digits, _ and - are allowed, at most 128 of them")
    return given
