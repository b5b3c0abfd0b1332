"""The hook between a journal and the client: every piece of text passes here, streamed or not, resumed or not.

The journal holds what the model wrote; a filter decides what a client sees of it. A filter may hold text back until it
knows more.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from schemas.events import FinishReason
from schemas.requests import Identity


class Released(NamedTuple):
    """Text for the client; `ended` closes the answer early."""

    text: str
    ended: FinishReason | None = None


class OutputFilter(Protocol):
    """State for one choice of one answer. The same pieces release the same text, or a resumed stream would differ."""

    def feed(self, index: int, text: str) -> Released:
        """Take the text of token `index`, which may be empty. Tokens come one by one, from 0 on, however they arrived.

        May raise ServingError to end the answer with an error.
        """

    def flush(self, index: int) -> Released:
        """Release what is held back: nothing follows token `index`."""


# None: nothing to filter for this identity and model.
FilterFactory = Callable[[Identity, str], OutputFilter | None]


class FilterChain:
    """Filters one after another; what the first releases is what the second sees."""

    def __init__(self, filters: Sequence[OutputFilter]) -> None:
        self._filters = filters

    def feed(self, index: int, text: str) -> Released:
        return self._run(index, Released(text), 0)

    def flush(self, index: int) -> Released:
        text, ended = "", None
        for position, each in enumerate(self._filters):
            released = each.flush(index)
            if released.text:
                released = self._run(index, released, position + 1)
            text += released.text
            ended = ended or released.ended
        return Released(text, ended)

    def _run(self, index: int, released: Released, start: int) -> Released:
        ended = released.ended
        for each in self._filters[start:]:
            released = each.feed(index, released.text)
            ended = ended or released.ended
        return released._replace(ended=ended)


def make_filter(factories: Sequence[FilterFactory], identity: Identity, model: str) -> OutputFilter | None:
    """The chain for one choice; None when nothing filters, so that the plain path stays plain."""
    filters = [each for factory in factories if (each := factory(identity, model)) is not None]
    if len(filters) == 1:
        return filters[0]
    return FilterChain(filters) if filters else None
