"""Many phrases at once, a symbol at a time (Aho and Corasick, 1975)."""

from collections import deque
from collections.abc import Iterable, Sequence

ROOT = 0


class Automaton:
    """A state is the longest beginning of a phrase that the symbols so far end with; `depth` is its length.

    `is_final`: a phrase ends here.
    """

    def __init__(self, phrases: Iterable[Sequence[str]]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self.depth = [0]
        self.is_final = [False]
        for phrase in phrases:
            self._add(phrase)
        self._fallback = self._link()
        self.max_depth = max(self.depth)

    def step(self, state: int, symbol: str) -> int:
        following = self._next[state].get(symbol)
        while following is None and state != ROOT:
            state = self._fallback[state]
            following = self._next[state].get(symbol)
        return ROOT if following is None else following

    def _add(self, phrase: Sequence[str]) -> None:
        state = ROOT
        for symbol in phrase:
            following = self._next[state].get(symbol)
            if following is None:
                following = self._next[state][symbol] = len(self._next)
                self._next.append({})
                self.depth.append(self.depth[state] + 1)
                self.is_final.append(False)
            state = following
        self.is_final[state] = True

    def _link(self) -> list[int]:
        """For each state the next shorter one that its symbols end with, filled in by growing depth."""
        self._fallback = [ROOT] * len(self._next)
        waiting = deque(self._next[ROOT].values())
        while waiting:
            state = waiting.popleft()
            for symbol, following in self._next[state].items():
                shorter = self.step(self._fallback[state], symbol)
                self._fallback[following] = shorter
                self.is_final[following] |= self.is_final[shorter]
                waiting.append(following)
        return self._fallback
