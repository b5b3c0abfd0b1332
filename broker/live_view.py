"""What an edge knows of a request that is not journaled: claims and end from the journal, tokens from the worker."""

from collections.abc import Callable

from broker.journal_view import JournalView
from schemas.errors import ErrorCode
from schemas.events import Delta, Event, Failed, Finished, Held, Started

# A worker's first tokens can overtake the record of its claim. What is too much here comes with the next checkpoint.
_MAX_EARLY = 256
# Keeps an answer under any payload limit.
_MAX_TOLD_TOKENS = 8192


class LiveView(JournalView):
    """The only place where the text is. A worker that takes over first asks what is known here, so that it is not
    before it has read of the claim that a view answers for it, and from then on takes no word of an earlier one."""

    def __init__(self, request_id: str, forget: Callable[[JournalView], None]) -> None:
        super().__init__(request_id, forget)
        self._early: list[Delta] | None = []
        self._fingerprint: str | None = None

    def take(self, event: Event, seq: int) -> None:
        if isinstance(event, Finished) and event.run == self.fold.run:
            event = self._checked(event)
        super().take(event, seq)
        if isinstance(event, Started) and self._early is not None:
            early, self._early = self._early, None
            for delta in early:
                self.take_live(delta)

    def take_live(self, delta: Delta) -> None:
        """Fold tokens that came from a worker, if it is the one in charge."""
        if self._early is not None:
            if len(self._early) < _MAX_EARLY:
                self._early.append(delta)
        elif delta.run == self.fold.run:
            length = self.fold.length
            super().take(delta, 0)
            if self.fold.length > length and self.fold.started is not None:
                self._fingerprint = self.fold.started.fingerprint

    def held_after(self, delta: Delta) -> Held:
        """The answer to a delta: how much is known, and of that what lies behind its end."""
        start = delta.index + len(delta.token_ids)
        told = slice(start, start + _MAX_TOLD_TOKENS)
        fold = self.fold
        return Held(fold.run, fold.length, fold.token_ids[told], fold.pieces[told], self._fingerprint)

    def _checked(self, finished: Finished) -> Finished | Failed:
        """A worker ends only what was confirmed here. Should it not be so, a text that lacks something is no answer."""
        if self.fold.length == finished.usage.completion_tokens:
            return finished
        message = f"{self.fold.length} of {finished.usage.completion_tokens} tokens of the answer arrived"
        return Failed(finished.run, ErrorCode.INTERNAL.value, message, True)
