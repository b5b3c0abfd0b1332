"""The filter on answers: lets out what cannot be the beginning of anything forbidden, and ends where something is."""

from collections.abc import Callable

from producer.edge.output_filter import Released
from producer.guardrails.text_rules import Rule, TextRules
from schemas.events import FinishReason

# No more than so many characters wait, so what is longer can begin to show before it is known for what it is.
MAX_HELD = 4096


class HoldBack:
    """One reader's view of one answer.

    What it lets out by when follows from the characters alone: it is as if they came one at a time. `on_block` is told
    when it ends the answer.
    """

    __slots__ = ("_held", "_num_out", "_on_block", "_patterns", "_phrases")

    def __init__(self, rules: TextRules, on_block: Callable[[Rule], None]) -> None:
        assert not rules.is_empty
        self._phrases = rules.blocklist.scanner() if rules.blocklist is not None else None
        self._patterns = rules.patterns.scanner() if rules.patterns is not None else None
        self._on_block = on_block
        self._held = ""
        self._num_out = 0

    def feed(self, index: int, text: str) -> Released:
        self._held += text
        num_read = self._num_out + len(self._held)
        # Which of the two is broken first decides, and what the other one thought by then.
        certain = self._patterns.feed(text) if self._patterns is not None else None
        if self._phrases is not None:
            unread = 0 if certain is None else num_read - certain
            stands = self._phrases.feed(text[: len(text) - unread])
            if stands is not None:
                return self._block(Rule.BLOCKLIST, stands)
        if certain is not None:
            return self._block(Rule.PATTERN, certain)
        hold = max(self._hold(num_read), num_read - MAX_HELD)
        if self._patterns is not None:
            self._patterns.forget(hold)
        return Released(self._let_out(hold))

    def flush(self, index: int) -> Released:
        num_read = self._num_out + len(self._held)
        if self._phrases is not None and self._phrases.end():
            return self._block(Rule.BLOCKLIST, num_read)
        if self._patterns is not None and self._patterns.end():
            return self._block(Rule.PATTERN, num_read)
        return Released(self._let_out(num_read))

    def _hold(self, num_read: int) -> int:
        """From where on text may be the beginning of something."""
        phrases = self._phrases.hold if self._phrases is not None else num_read
        patterns = self._patterns.hold if self._patterns is not None else num_read
        return min(phrases, patterns)

    def _block(self, rule: Rule, num_read: int) -> Released:
        """End the answer as it was when `num_read` characters were known."""
        hold = self._phrases.hold if self._phrases is not None else num_read
        if self._patterns is not None:
            hold = min(hold, self._patterns.hold_at(num_read))
        self._on_block(rule)
        return Released(self._let_out(hold), FinishReason.CONTENT_FILTER)

    def _let_out(self, offset: int) -> str:
        length = max(offset - self._num_out, 0)
        text, self._held = self._held[:length], self._held[length:]
        self._num_out += length
        return text
