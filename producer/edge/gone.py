"""Why a call cannot be read, or joined, any more."""

import time

from broker.journal import LAPSED, PURGED
from producer.edge.calls import Call
from producer.edge.followed import FollowedView
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled

_CUT = "its journal is no longer kept"
_WHY = {
    PURGED: "its end was delivered, and the journal dropped",
    LAPSED: "the time in which it could be resumed is over",
    "client_left": "it was cancelled when its client left",
    "asked": "it was cancelled",
    "not_submitted": "it was not taken into the queue",
}


def expired(reason: str | None) -> ServingError:
    """410. `reason` is that of the record which stands at the journal's end or in its place, None without any."""
    return ServingError(
        ErrorCode.JOURNAL_EXPIRED, f"This request cannot be read any more: {_WHY.get(reason or '', _CUT)}."
    )


def not_journaled() -> ServingError:
    """410, of a call that cannot be read here."""
    return ServingError(
        ErrorCode.JOURNAL_EXPIRED,
        "This request was not journaled: only the server that took it can answer it, while it lives.",
    )


def why_gone(call: Call, resume_window_s: float) -> str | None:
    """The reason for `expired`, None while the call can be read.

    A call that a filter ended, or that ended with another of its parts, reads as it did the first time.
    """
    for part in call.parts:
        terminal = part.view.fold.terminal
        if isinstance(terminal, Cancelled) and terminal.reason in _WHY:
            return terminal.reason
    return LAPSED if has_lapsed(call, resume_window_s) else None


def has_lapsed(call: Call, resume_window_s: float) -> bool:
    """Whether a call ended too long ago. Its edge would have dropped the journal, if it had lived."""
    ends = [part.view.ended_at for part in call.parts if isinstance(part.view, FollowedView)]
    known = [ended_at for ended_at in ends if ended_at is not None]
    return call.is_over and bool(known) and time.time() - max(known) > resume_window_s
