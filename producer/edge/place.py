"""`Last-Event-ID`: which text a reader has had.

An id names, for each choice, the last token whose text is out, -1 for none. Any token may be named, also one that let
no text out, such as one in the middle of a character: what follows it is the same.
"""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers

from producer.edge.calls import Call
from schemas.errors import ErrorCode, ServingError
from schemas.events import Finished
from schemas.fold import Fold

LAST_EVENT_ID = "Last-Event-ID"
_PLACE = re.compile(r"(?:-1|[0-9]{1,9})(?:,(?:-1|[0-9]{1,9}))*")


class PlaceUnknown(ServingError):
    """A place that the answer does not have. The reader's mistake: it says nothing about the call."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_PARAMETER, message, param=LAST_EVENT_ID)


def read_place(headers: Headers) -> tuple[int, ...] | None:
    """For each choice the first token to send; None without the header, or an empty one: from the beginning.

    Raises ServingError (400) naming the header.
    """
    text = headers.get(LAST_EVENT_ID, "").strip()
    if not text:
        return None
    indexes = [int(index) for index in text.split(",")] if _PLACE.fullmatch(text) else [-1]
    if max(indexes) < 0:
        raise PlaceUnknown(f"{LAST_EVENT_ID} must be the id of an event of this stream.")
    return tuple(index + 1 for index in indexes)


def event_id(starts: Sequence[int]) -> str | None:
    """The inverse: the id whose stream goes on at `starts`; None at the beginning."""
    return ",".join(str(start - 1) for start in starts) if any(starts) else None


def check_place(starts: Sequence[int], call: Call) -> None:
    """Raises ServingError (400) unless there is an index for each choice."""
    if len(starts) != len(call.parts):
        raise PlaceUnknown(f"{LAST_EVENT_ID} must have an index for each choice of the answer: {len(call.parts)}.")


def is_beyond(fold: Fold, start: int, is_filtered: bool) -> bool:
    """Whether an answer has ended before `start`. What a filter releases at the end counts as one token more."""
    return isinstance(fold.terminal, Finished) and start > fold.length + is_filtered


def beyond_the_end(num_tokens: int) -> PlaceUnknown:
    return PlaceUnknown(f"{LAST_EVENT_ID} is beyond the end of the answer, which has {num_tokens} tokens.")
