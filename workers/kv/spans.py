"""How much KV is taken, where a fork may share its beginning with its origin.

    [0 ······ 400) ┬ [400 ··· 460)   a
                   ├ [400 · 430)     b
                   └ [400 ·· 450)    c

Every holder has the span it ends with, and through it those before. What several hold counts once.
"""

from collections.abc import Iterable


class Span:
    """A stretch of tokens, from `start` to `end`. `num_refs`: its holder, if it has one, and the spans behind it."""

    __slots__ = ("end", "num_refs", "parent", "start")

    def __init__(self, start: int, end: int, parent: "Span | None") -> None:
        self.start = start
        self.end = end
        self.parent = parent
        self.num_refs = 1
        if parent is not None:
            parent.num_refs += 1


class SpanLedger:
    """Counts in tokens, whole pages where there are pages (`page_size` above 1): a fork shares whole pages and copies
    the rest. Without `is_sharing` every fork is a copy.
    """

    def __init__(self, *, is_sharing: bool, page_size: int = 1) -> None:
        self._is_sharing = is_sharing
        self._page_size = page_size
        self.total = 0

    def size(self, num_tokens: int) -> int:
        """What so many tokens take, alone."""
        return -(-num_tokens // self._page_size) * self._page_size

    def num_shared(self, num_tokens: int) -> int:
        """How much of its first `num_tokens` a fork has in common with its origin."""
        return num_tokens // self._page_size * self._page_size if self._is_sharing else 0

    def reserve(self, end: int) -> Span:
        """Tokens for a new holder."""
        return self._new(0, end, None)

    def fork(self, origin: Span, num_tokens: int, end: int) -> Span:
        """A new holder of the first `num_tokens` of another, with room up to `end`."""
        return self._new(*self._branch_point(origin, self.num_shared(num_tokens), end))

    def resize(self, span: Span, end: int) -> Span:
        """Let a holder shrink to `end` tokens or grow to have room for them; its span from now on."""
        if span.num_refs == 1 and end > span.start:
            self.total += self.size(end) - self.size(span.end)
            span.end = end
            return span
        # Others hold this stretch, or it goes altogether.
        at = min(span.end, end) // self._page_size * self._page_size
        resized = self._new(*self._branch_point(span, at, end))
        self.release(span)
        return resized

    def release(self, span: Span) -> None:
        """A holder goes; what nobody else holds is free."""
        holder: Span | None = span
        while holder is not None:
            holder.num_refs -= 1
            if holder.num_refs:
                return
            self.total -= self.size(holder.end) - holder.start
            holder = holder.parent

    def size_of(self, spans: Iterable[tuple[Span, int]]) -> int:
        """What these holders take together, each looked at up to a number of tokens; those cut short come last."""
        seen: set[Span] = set()
        total = 0
        for last, limit in spans:
            span: Span | None = last
            while span is not None and span not in seen:
                seen.add(span)
                total += max(0, min(self.size(span.end), limit) - span.start)
                span = span.parent
        return total

    def _branch_point(self, span: Span, at: int, end: int) -> tuple[int, int, Span | None]:
        """Start, end and parent of a span that leaves another's line at `at`, which is a multiple of pages."""
        line: Span | None = span
        while line is not None and line.start >= at:
            line = line.parent
        if line is not None and line.end > at:
            line = self._split(line, at)
        return at if line is not None else 0, end, line

    @staticmethod
    def _split(span: Span, at: int) -> Span:
        """Put a span above `span` that takes its tokens up to `at`."""
        upper = Span(span.start, at, None)
        upper.parent = span.parent  # whose reference to `span` is now to it
        upper.num_refs = 1
        span.start = at
        span.parent = upper
        return upper

    def _new(self, start: int, end: int, parent: Span | None) -> Span:
        span = Span(start, end, parent)
        self.total += self.size(end) - start
        return span
