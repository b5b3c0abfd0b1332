"""Regular expressions that may not match: RE2, so their time is linear in the text whatever they are.

They see the text as it is written, unlike the blocklist.
"""

from collections.abc import Iterable

import re2

from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.pattern_nodes import Choice, Node
from producer.guardrails.pattern_syntax import NotReadable, parse

MAX_PATTERNS = 100
MAX_PATTERN_LENGTH = 1000
# Bytes that an automaton may take, on demand: of one expression, and of all together.
_MAX_MEMORY = 8 * 2**20
_MAX_MEMORY_TOGETHER = 64 * 2**20


class Patterns:
    """Expressions, prepared. Raises InvalidGuardrails for one that RE2 refuses, or that would match nothing at all.

    `any_of` matches what one of them does, as early as it can; `open_end` the end of a text that is a match or can
    become one.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        given = list(patterns)
        if len(given) > MAX_PATTERNS:
            raise InvalidGuardrails("patterns", f"{len(given)} expressions; at most {MAX_PATTERNS} are possible")
        nodes = [_checked(place, pattern) for place, pattern in enumerate(given)]
        # One by one over long prompts: the automaton of all together can outgrow its memory, and is slow then.
        self._each = [compile_pattern(node.whole()) for node in nodes]
        together: Node = Choice(tuple(nodes))
        try:
            self.any_of = compile_pattern(together.whole(), _MAX_MEMORY_TOGETHER)
            open_end = f"(?:{together.whole()}|{together.beginnings()})\\z"
            self.open_end = compile_pattern(open_end, _MAX_MEMORY_TOGETHER)
        except re2.error as error:
            raise InvalidGuardrails("patterns", f"all together: {_reason(error)}") from None

    def is_in(self, text: str) -> bool:
        """Whether one of them matches somewhere in a whole text."""
        data = to_bytes(text)
        return any(pattern.search(data) is not None for pattern in self._each)

    def scanner(self) -> "PatternScanner":
        return PatternScanner(self)


class PatternScanner:
    """Reads one text as it grows. Offsets count its characters from the beginning.

    Of the text only what a match can still begin in is kept, and the character before it. A match that ends with the
    text so far waits for one more character, which may show that it is none (`\\bno\\b` and `not`).
    """

    __slots__ = ("_before", "_patterns", "_start", "_window")

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._before = ""
        self._window = ""
        self._start = 0

    @property
    def hold(self) -> int:
        """Text from here on may be the beginning of a match."""
        return self._start + self._open_from(self._window)

    def feed(self, text: str) -> int | None:
        """Read on. How much of the text had been read when a match in it was certain; None while none is.

        It is the same however the text was cut.
        """
        seen = len(self._window)
        self._window += text
        if self._search(self._window) is not None:
            for length in range(seen + 1, len(self._window) + 1):
                if self._is_certain(self._window[:length]):
                    return self._start + length
        return None

    def hold_at(self, num_read: int) -> int:
        """From where on text was a match, or may have been the beginning of one, when only so much had been read."""
        window = self._window[: num_read - self._start]
        found = self._search(window)
        own = self._open_from(window)
        return self._start + (own if found is None else min(own, found))

    def end(self) -> bool:
        """Nothing follows. Whether there is a match now."""
        return self._search(self._window) is not None

    def forget(self, offset: int) -> None:
        """No match begins before `offset`."""
        length = offset - self._start
        if length <= 0:
            return
        self._before = self._window[length - 1]
        self._window = self._window[length:]
        self._start = offset

    def _search(self, window: str) -> int | None:
        """Where in it the first match begins."""
        found = self._find(self._patterns.any_of, window)
        return None if found is None else found[0]

    def _is_certain(self, window: str) -> bool:
        found = self._find(self._patterns.any_of, window)
        return found is not None and found[1] < len(window)

    def _open_from(self, window: str) -> int:
        found = self._find(self._patterns.open_end, window)
        return len(window) if found is None else found[0]

    def _find(self, pattern: "re2._Regexp", window: str) -> tuple[int, int] | None:
        before = to_bytes(self._before)
        data = before + to_bytes(window)
        found = pattern.search(data, len(before))
        if found is None:
            return None
        start, end = found.span()
        if len(data) == len(self._before) + len(window):
            return start - len(before), end - len(before)
        characters = len(data[len(before) : start].decode())
        return characters, characters + len(data[start:end].decode())


def compile_pattern(pattern: str, max_memory: int = _MAX_MEMORY) -> "re2._Regexp":
    """Raises re2.error."""
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    options.max_mem = max_memory
    return re2.compile(pattern, options)


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def check_pattern(pattern: str) -> Node:
    """Raises ValueError with what is wrong with an expression."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"at most {MAX_PATTERN_LENGTH} characters are possible")
    try:
        compile_pattern(pattern)
        node = parse(pattern)
        compile_pattern(node.whole())
    except re2.error as error:
        raise ValueError(_reason(error)) from None
    except NotReadable as error:
        raise ValueError(f"{error} is not supported") from None
    if node.width == 0:
        raise ValueError("it matches an empty text")
    return node


def _checked(place: int, pattern: str) -> Node:
    try:
        return check_pattern(pattern)
    except ValueError as error:
        raise InvalidGuardrails("patterns", str(error), place) from None


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
