"""Finding the first of several strings in text that arrives in pieces."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Scan(NamedTuple):
    """Text that is safe to show, and whether a stop string followed it."""

    text: str
    is_match: bool


class StopMatcher:
    """Holds back text that may be the beginning of a stop string, and cuts at the first stop string that completes.

    The result depends on the text alone, not on how it was cut into pieces: the first character that completes a stop
    string decides, and of several that end there the longest. Aho and Corasick, "Efficient string matching" (1975):
    one step a character, whatever the number and length of the strings.
    """

    __slots__ = ("_depths", "_fails", "_held", "_matches", "_node", "_nodes")

    def __init__(self, stops: Iterable[str]) -> None:
        self._nodes: list[dict[str, int]] = [{}]
        self._fails = [0]
        self._depths = [0]
        self._matches = [0]  # length of the longest stop string that ends at a node, 0 for none
        self._node = 0
        self._held = ""
        for stop in stops:
            self._insert(stop)
        self._link()

    def push(self, text: str) -> Scan:
        """Take more text. After a match nothing may be pushed."""
        if len(self._nodes) == 1:
            return Scan(text, False)
        known = len(self._held)
        text = self._held + text
        node = self._node
        for end in range(known, len(text)):
            node = self._step(node, text[end])
            if self._matches[node]:
                self._held = ""
                return Scan(text[: end + 1 - self._matches[node]], True)
        self._node = node
        cut = len(text) - self._depths[node]
        self._held = text[cut:]
        return Scan(text[:cut], False)

    def flush(self) -> str:
        """The text held back, when the sequence ends without a match."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _insert(self, stop: str) -> None:
        node = 0
        for character in stop:
            child = self._nodes[node].get(character)
            if child is None:
                child = len(self._nodes)
                self._nodes[node][character] = child
                self._nodes.append({})
                self._fails.append(0)
                self._depths.append(self._depths[node] + 1)
                self._matches.append(0)
            node = child
        self._matches[node] = self._depths[node]

    def _link(self) -> None:
        """Point each node at the longest proper suffix of its text that is a node too, breadth first."""
        queue = deque(self._nodes[0].values())
        while queue:
            node = queue.popleft()
            for character, child in self._nodes[node].items():
                self._fails[child] = self._step(self._fails[node], character)
                self._matches[child] = self._matches[child] or self._matches[self._fails[child]]
                queue.append(child)

    def _step(self, node: int, character: str) -> int:
        while node and character not in self._nodes[node]:
            node = self._fails[node]
        return self._nodes[node].get(character, 0)
