"""Ids of requests. The edge mints them; a client's own is only echoed.

The last digits of an id tell whoever knows the owner that it is theirs. So an edge can say to an owner that a journal
is gone, and to a stranger nothing, when no record is left.
"""

import hashlib
import re
import secrets
import time

from schemas.errors import ErrorCode, ServingError

_ECHOED = re.compile(r"[^A-Za-z0-9_.:/=+@-]")
_MAX_ECHOED = 128
_MAX_IDEMPOTENCY_KEY = 255
_RANDOM_DIGITS = 24
_OWNER_DIGITS = 8


def mint_request_id(owner: str = "") -> str:
    """96 random bits and the owner's digits, in hex: fit for a subject, a header and a file name."""
    return _owned(secrets.token_hex(_RANDOM_DIGITS // 2), owner)


def mint_ordered_id(prefix: str, age_s: int = 0) -> str:
    """32 hex digits: microseconds since 1970, then 72 random bits. Those minted later sort behind.

    `age_s`: as if it had been minted so long ago.
    """
    return f"{prefix}{time.time_ns() // 1000 - age_s * 1_000_000:014x}{secrets.token_hex(9)}"


def is_own(request_id: str, owner: str) -> bool:
    """Whether an id was made for this owner, as far as 32 bits can tell."""
    return request_id == _owned(request_id[:_RANDOM_DIGITS], owner)


def mint_seed() -> int:
    """A random seed of 63 bits, for calls that bring none."""
    return secrets.randbits(63)


def derive_request_id(owner: str, idempotency_key: str, generation: int) -> str:
    """The id every edge finds for this owner and key, hence the same journal.

    An id whose journal was cancelled or dropped cannot be used again; the next generation takes its place.
    """
    digest = hashlib.sha256(f"{owner}\0{idempotency_key}\0{generation}".encode()).hexdigest()
    return _owned(digest[:_RANDOM_DIGITS], owner)


def part_id(request_id: str, index: int) -> str:
    """Id of one sequence of a call; that of the first is the call's own."""
    return request_id if index == 0 else f"{request_id}-{index}"


def resume_path(request_id: str) -> str:
    """Where the events of a request can be read again."""
    return f"/v1/requests/{request_id}/events"


def sanitise_client_id(text: str | None) -> str | None:
    """A client's own request id, made harmless for headers and logs; None when nothing is left of it."""
    if not text:
        return None
    return _ECHOED.sub("", text[: 4 * _MAX_ECHOED])[:_MAX_ECHOED] or None


def check_idempotency_key(text: str | None) -> str | None:
    """The header's value. Raises ServingError (400) unless it is 1 to 255 printable ASCII characters."""
    if text is None:
        return None
    key = text.strip()
    if not key or len(key) > _MAX_IDEMPOTENCY_KEY or not (key.isascii() and key.isprintable()):
        raise ServingError(
            ErrorCode.INVALID_PARAMETER,
            f"Idempotency-Key must be 1 to {_MAX_IDEMPOTENCY_KEY} printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key


def hash_label(text: str) -> str:
    """A client's label as it may be logged."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _owned(digits: str, owner: str) -> str:
    return digits + hashlib.sha256(f"{digits}\0{owner}".encode()).hexdigest()[:_OWNER_DIGITS]
