"""What no text may hold: phrases and expressions together."""

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from producer.guardrails.blocklist import Blocklist
from producer.guardrails.patterns import Patterns


class Rule(StrEnum):
    """What kind of rule a text broke. Which of them is never told."""

    BLOCKLIST = "blocklist"
    PATTERN = "pattern"


class TextRules:
    """Prepared once for each change of them. Raises InvalidGuardrails."""

    def __init__(self, phrases: Sequence[str], patterns: Sequence[str]) -> None:
        self.blocklist = Blocklist(phrases) if phrases else None
        self.patterns = Patterns(patterns) if patterns else None

    @property
    def is_empty(self) -> bool:
        return self.blocklist is None and self.patterns is None

    def broken_by(self, text: str) -> Rule | None:
        """The kind of rule that a whole text breaks."""
        if self.blocklist is not None and self.blocklist.is_in(text):
            return Rule.BLOCKLIST
        if self.patterns is not None and self.patterns.is_in(text):
            return Rule.PATTERN
        return None


@lru_cache(maxsize=2)
def prepared(phrases: tuple[str, ...], patterns: tuple[str, ...]) -> TextRules:
    """Thousands of phrases take half a second: for a thread. Those of the last calls are there at once.

    Raises InvalidGuardrails.
    """
    return TextRules(phrases, patterns)
