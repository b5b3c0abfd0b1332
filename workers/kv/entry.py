"""The KV behind one handle."""

from dataclasses import dataclass

from workers.engine.sequence import Sequence
from workers.kv.spans import Span
from workers.runners.base import Handle


@dataclass(slots=True, eq=False)
class Entry:
    """Live while a sequence computes in it, then cached, then gone. A live one may still wait for its handle:

        waiting (`source` computes the beginning) -> live (`sequence`, `handle`) -> cached (`handle`) -> gone

    `tokens` is its place in the tree: of a live one what was known when it began, of a cached one what it holds.
    `num_locks` counts the entries that wait for this one; a locked entry is not evicted.
    """

    scope: str
    tokens: list[int]
    span: Span
    sequence: Sequence | None = None
    handle: Handle | None = None
    source: "Entry | None" = None
    num_wanted: int = 0
    num_locks: int = 0

    @property
    def num_tokens(self) -> int:
        """How many of its tokens are computed."""
        if self.handle is None:
            return 0
        return len(self.tokens) if self.sequence is None else self.sequence.num_computed

    @property
    def is_cached(self) -> bool:
        return self.sequence is None and self.handle is not None

    @property
    def can_go(self) -> bool:
        """Whether it may be evicted, or continued by another sequence."""
        return self.is_cached and self.num_locks == 0
