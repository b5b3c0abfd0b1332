"""The one reading of a journal. Edge, resuming edge and next worker all use it, so they cannot disagree.

Records are fed in stream order. At any position there is one prefix of accepted tokens; the first terminal event of the
current run (or of an edge) ends it, and everything later is ignored.
"""

from collections.abc import Iterable

from schemas.events import (
    Accepted,
    Advanced,
    Cancelled,
    Delta,
    Event,
    Failed,
    Finished,
    Released,
    Started,
    Terminal,
)


class Fold:
    """State of one request's journal up to the last record fed.

    `fingerprint` is that of the model whose tokens these are; before the first one, of the last claim. `gap` is true
    while a delta beyond the prefix has been seen that nothing has healed yet: the next checkpoint or the terminal event
    brings the missing tokens. `reached`: the most tokens that a run which is not journaled has told of.
    """

    __slots__ = (
        "accepted",
        "claims_without_progress",
        "fingerprint",
        "gap",
        "num_claims",
        "pieces",
        "reached",
        "run",
        "started",
        "started_seq",
        "terminal",
        "token_ids",
    )

    def __init__(self) -> None:
        self.accepted: Accepted | None = None
        self.run: str | None = None
        self.started: Started | None = None
        self.started_seq = 0
        self.fingerprint: str | None = None
        self.token_ids: list[int] = []
        self.pieces: list[str] = []
        self.terminal: Terminal | None = None
        self.gap = False
        self.reached = 0
        self.claims_without_progress = 0
        self.num_claims = 0

    @property
    def length(self) -> int:
        """Number of accepted tokens, which is the index the next one gets."""
        return len(self.token_ids)

    def text(self, start: int = 0, end: int | None = None) -> str:
        """Text released by the tokens from `start` up to `end`, exclusive."""
        return "".join(self.pieces[start:end])

    def feed(self, event: Event, seq: int = 0) -> bool:
        """Take the record at stream position `seq`; True when tokens were added or the request ended."""
        if self.terminal is not None:
            return False
        match event:
            case Delta():
                return event.run == self.run and self._extend(event.index, event.token_ids, event.pieces)
            case Advanced():
                if event.run == self.run and event.num_tokens > self.reached:
                    self.reached = event.num_tokens
                    self.claims_without_progress = 0
            case Finished():
                if event.run != self.run:
                    return False
                self._extend(0, event.token_ids, event.pieces)
                self.terminal = event
                return True
            case Failed():
                if event.run is not None and event.run != self.run:
                    return False
                self.terminal = event
                return True
            case Cancelled():
                self.terminal = event
                return True
            case Started():
                self.run = event.run
                self.started = event
                self.started_seq = seq
                if not self.token_ids:
                    # A later claim by another model is handed back, and changes nothing.
                    self.fingerprint = event.fingerprint
                self.gap = False
                self.claims_without_progress += 1
                self.num_claims += 1
            case Released():
                if event.run == self.run:
                    self.run = None
                    self.started = None
                    # The claim that ends here is forgiven; after progress there is none to forgive.
                    self.claims_without_progress = max(0, self.claims_without_progress - 1)
            case Accepted():
                self.accepted = event
        return False

    def _extend(self, index: int, token_ids: list[int], pieces: list[str]) -> bool:
        known = len(self.token_ids)
        if index > known:
            self.gap = True
            return False
        skip = known - index
        if skip >= len(token_ids):
            return False
        self.token_ids += token_ids[skip:]
        self.pieces += pieces[skip:]
        self.gap = False
        self.claims_without_progress = 0
        return True


def fold(records: Iterable[tuple[int, Event]]) -> Fold:
    """Fold `(stream sequence, event)` pairs, in stream order, from a journal's beginning."""
    state = Fold()
    for seq, event in records:
        state.feed(event, seq)
    return state
