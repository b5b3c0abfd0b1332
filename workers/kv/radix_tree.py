"""Token sequences by their beginnings.

            ┌ [9 9 4]      a
    [5 1 7] ┤
            └ [2] ┬ [8]    b
                  └ [3 3]  c, d

An edge holds as many tokens as it can. It is split where two sequences part, so any common beginning is found,
wherever it ends.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)


class Found(NamedTuple, Generic[T]):
    """An item that begins with the first `num_shared` of the tokens asked for, and not with one more."""

    item: T
    num_shared: int


class _Node(Generic[T]):
    """The tokens between its parent and itself, and the items that end here."""

    __slots__ = ("children", "items", "parent", "tokens")

    def __init__(self, tokens: list[int], parent: "_Node[T] | None") -> None:
        self.tokens = tokens
        self.parent = parent
        self.children: dict[int, _Node[T]] = {}
        self.items: dict[T, None] = {}  # as a set, in order


class RadixTree(Generic[T]):
    """Each item has one sequence; several may have the same. Comparing is list comparison: nanoseconds a token."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node([], None)
        self._ends: dict[T, _Node[T]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[T]:
        return iter(self._ends)

    def __contains__(self, item: T) -> bool:
        return item in self._ends

    def insert(self, tokens: list[int], item: T) -> None:
        assert item not in self._ends, "an item has one sequence"
        node, depth, num_of_edge = self._root, 0, 0
        for node, depth, num_of_edge in self._walk(tokens):  # noqa: B007 - the last one is wanted
            pass
        if num_of_edge < len(node.tokens):
            node = self._split(node, num_of_edge)
        if depth < len(tokens):
            leaf: _Node[T] = _Node(tokens[depth:], node)
            node.children[tokens[depth]] = leaf
            node = leaf
        node.items[item] = None
        self._ends[item] = node

    def remove(self, item: T) -> None:
        node = self._ends.pop(item)
        del node.items[item]
        while node.parent is not None and not node.items and not node.children:
            del node.parent.children[node.tokens[0]]
            node = node.parent
        if node.parent is not None and not node.items and len(node.children) == 1:
            self._join(node)

    def find(self, tokens: list[int]) -> Iterator[Found[T]]:
        """All items that share a beginning with `tokens`, the longest first. The tree must not change meanwhile."""
        path = list(self._walk(tokens))
        below = None
        for node, depth, _ in reversed(path):
            for item in _items(node, below):
                yield Found(item, depth)
            below = node

    def sequence(self, item: T) -> list[int]:
        """The tokens an item was put in with."""
        parts = []
        node: _Node[T] | None = self._ends[item]
        while node is not None:
            parts.append(node.tokens)
            node = node.parent
        return [token for part in reversed(parts) for token in part]

    def _walk(self, tokens: list[int]) -> Iterator[tuple[_Node[T], int, int]]:
        """Node by node along `tokens`: how many of them are shared so far, and how many of the node's own."""
        node, depth = self._root, 0
        while depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None:
                return
            num_of_edge = _num_common(child.tokens, tokens, depth)
            depth += num_of_edge
            yield child, depth, num_of_edge
            if num_of_edge < len(child.tokens):
                return
            node = child

    @staticmethod
    def _split(node: _Node[T], count: int) -> _Node[T]:
        """Put a node above `node` that takes the first `count` of its tokens."""
        assert node.parent is not None
        upper: _Node[T] = _Node(node.tokens[:count], node.parent)
        node.parent.children[upper.tokens[0]] = upper
        node.tokens = node.tokens[count:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper

    @staticmethod
    def _join(node: _Node[T]) -> None:
        """Let the only child of a node that nothing ends at take its place."""
        [child] = node.children.values()
        assert node.parent is not None
        child.tokens = node.tokens + child.tokens
        child.parent = node.parent
        node.parent.children[child.tokens[0]] = child


def _items(node: _Node[T], without: _Node[T] | None) -> Iterator[T]:
    """The items at and below a node, but for those of one of its children."""
    pending = [node]
    while pending:
        here = pending.pop()
        yield from here.items
        pending += [child for child in here.children.values() if child is not without]


def _num_common(edge: list[int], tokens: list[int], start: int) -> int:
    """How many tokens of an edge stand in `tokens` from `start` on."""
    size = min(len(edge), len(tokens) - start)
    if edge[:size] == tokens[start : start + size]:
        return size
    low, high = 0, size  # the first `low` are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if edge[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low
