"""Words and phrases that may not appear.

Compared are folded texts (`folding`). Where a phrase begins or ends with a word character, a word must begin or end
there in the text too: `ass` does not stand in `class`. A run of whitespace is as good as any other.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from producer.guardrails.automaton import ROOT, Automaton
from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.folding import SPACE, combining_class, decompose, fold_symbol, fold_text, is_word

MAX_PHRASES = 10_000
MAX_PHRASE_LENGTH = 256
# Symbols of the edges of words, beside those of characters.
_OPEN, _CLOSE = "open", "close"
# Marks on one character that are put in order; more are taken as they come.
_MOST_MARKS = 64
_WORD_PART = re.compile(r"\w+")


class Blocklist:
    """Phrases, prepared. Raises InvalidGuardrails for a phrase that cannot be compared, or too many."""

    def __init__(self, phrases: Iterable[str]) -> None:
        given = list(phrases)
        if len(given) > MAX_PHRASES:
            raise InvalidGuardrails("blocklist", f"{len(given)} phrases; at most {MAX_PHRASES} are possible")
        folded = {_checked(place, phrase) for place, phrase in enumerate(given)}
        self.automaton = Automaton(list(_with_edges(phrase)) for phrase in sorted(folded))
        self._by_first_word: defaultdict[str, list[str]] = defaultdict(list)
        self._others: list[str] = []
        for phrase in folded:
            if is_word(phrase[0]) and (first := _WORD_PART.match(phrase)):
                self._by_first_word[first[0]].append(phrase)
            else:
                self._others.append(phrase)

    def is_in(self, text: str) -> bool:
        """Whether a phrase stands in a whole text."""
        folded = fold_text(text)
        words = self._by_first_word.keys() & set(_WORD_PART.findall(folded))
        likely = [phrase for word in words for phrase in self._by_first_word[word]]
        return any(_stands_in(phrase, folded) for phrase in (*likely, *self._others))

    def scanner(self) -> "PhraseScanner":
        return PhraseScanner(self.automaton)


class PhraseScanner:
    """Reads one text as it grows. Offsets count its characters from the beginning."""

    __slots__ = ("_automaton", "_is_in_word", "_last", "_marks", "_marks_at", "_num_read", "_origins", "_state")

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._state = ROOT
        self._num_read = 0
        # Where in the text the symbols of the state are.
        self._origins: list[int] = []
        self._is_in_word = False
        self._last = ""
        self._marks: list[str] = []
        self._marks_at = 0

    @property
    def hold(self) -> int:
        """Text from here on may be the beginning of a phrase."""
        depth = self._automaton.depth[self._state]
        hold = self._origins[-depth] if depth else self._num_read
        return min(hold, self._marks_at) if self._marks else hold

    def feed(self, text: str) -> int | None:
        """Read on. How much of the text had been read when it held a phrase; None while it does not."""
        for character in text:
            at = self._num_read
            self._num_read += 1
            for symbol in decompose(character):
                if self._take(symbol, at):
                    return self._num_read
        depth = self._automaton.depth[self._state]
        del self._origins[: len(self._origins) - depth]
        return None

    def end(self) -> bool:
        """Nothing follows. Whether that makes it a phrase."""
        return self._put_marks() or (self._is_in_word and self._step(_CLOSE, self._num_read))

    def _take(self, symbol: str, at: int) -> bool:
        if combining_class(symbol):
            if not self._marks:
                self._marks_at = at
            self._marks.append(symbol)
            return len(self._marks) >= _MOST_MARKS and self._put_marks()
        if self._marks and self._put_marks():
            return True
        return self._put(symbol, at)

    def _put_marks(self) -> bool:
        marks, self._marks = sorted(self._marks, key=combining_class), []
        return any(self._put(mark, self._marks_at) for mark in marks)

    def _put(self, symbol: str, at: int) -> bool:
        return any(self._put_folded(each, at) for each in fold_symbol(symbol))

    def _put_folded(self, symbol: str, at: int) -> bool:
        if symbol == SPACE == self._last:
            return False
        self._last = symbol
        found = False
        if is_word(symbol) != self._is_in_word:
            found = self._step(_CLOSE if self._is_in_word else _OPEN, at)
            self._is_in_word = not self._is_in_word
        return found or self._step(symbol, at)

    def _step(self, symbol: str, at: int) -> bool:
        self._origins.append(at)
        self._state = self._automaton.step(self._state, symbol)
        return self._automaton.is_final[self._state]


def _checked(place: int, phrase: str) -> str:
    folded = fold_text(phrase)
    if not folded:
        raise InvalidGuardrails("blocklist", "a phrase needs a visible character", place)
    if len(folded) > MAX_PHRASE_LENGTH:
        raise InvalidGuardrails("blocklist", f"at most {MAX_PHRASE_LENGTH} characters are possible", place)
    return folded


def _with_edges(phrase: str) -> Iterator[str]:
    was_word = False
    for symbol in phrase:
        if is_word(symbol) != was_word:
            yield _CLOSE if was_word else _OPEN
            was_word = not was_word
        yield symbol
    if was_word:
        yield _CLOSE


def _stands_in(phrase: str, folded: str) -> bool:
    needs_begin, needs_end = is_word(phrase[0]), is_word(phrase[-1])
    start = folded.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        begins = not needs_begin or start == 0 or not is_word(folded[start - 1])
        if begins and (not needs_end or end == len(folded) or not is_word(folded[end])):
            return True
        start = folded.find(phrase, start + 1)
    return False
