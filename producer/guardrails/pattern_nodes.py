"""The parts of a regular expression, each of which can be written out again, whole or as all its beginnings.

The beginnings of `ab+c` are ``, `a`, `ab+`; as an expression: `(?:|a(?:b*|b+(?:)))`. An answer is held back where it
ends with a beginning.
"""

from dataclasses import dataclass
from typing import Protocol

_NOTHING = "(?:)"


class Node(Protocol):
    @property
    def width(self) -> int:
        """Fewest characters that match; only whether it is 0 counts."""

    def whole(self) -> str:
        """The same expression; every repetition ends as early as it can."""

    def beginnings(self) -> str:
        """An expression for all that a match can begin with, nothing included."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One character, or a condition on a place (`width` 0)."""

    text: str
    width: int = 1

    def whole(self) -> str:
        return self.text

    def beginnings(self) -> str:
        return _NOTHING


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]

    @property
    def width(self) -> int:
        return sum(item.width for item in self.items)

    def whole(self) -> str:
        return "".join(item.whole() for item in self.items) or _NOTHING

    def beginnings(self) -> str:
        text = _NOTHING
        for item in reversed(self.items):
            own = item.beginnings()
            text = f"(?:{own}|{item.whole()}{text})"
        return text


@dataclass(frozen=True, slots=True)
class Choice:
    items: tuple[Node, ...]

    @property
    def width(self) -> int:
        return min(item.width for item in self.items)

    def whole(self) -> str:
        return "(?:" + "|".join(item.whole() for item in self.items) + ")"

    def beginnings(self) -> str:
        return "(?:" + "|".join(item.beginnings() for item in self.items) + ")"


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` None is without end."""

    item: Node
    fewest: int
    most: int | None

    @property
    def width(self) -> int:
        return self.item.width * self.fewest

    def whole(self) -> str:
        return f"(?:{self.item.whole()}){self._count(self.fewest, self.most)}"

    def beginnings(self) -> str:
        if self.most == 0:
            return _NOTHING
        before = self._count(0, None if self.most is None else self.most - 1)
        return f"(?:(?:{self.item.whole()}){before}{self.item.beginnings()})"

    @staticmethod
    def _count(fewest: int, most: int | None) -> str:
        if most is None:
            return ("*?", "+?")[fewest] if fewest < 2 else f"{{{fewest},}}?"
        return f"{{{fewest},{most}}}?"
