"""Reads RE2's syntax as far as it has parts; what one character may be stays as it is written.

Only for expressions that RE2 has accepted: what is wrong in itself is not looked for again.
"""

import re

from producer.guardrails.pattern_nodes import Atom, Choice, Node, Repeat, Sequence

_COUNT = re.compile(r"\{(\d+)(?:(,)(\d+)?)?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?([:)])")
_NAME = re.compile(r"\(\?P?<\w+>")
_ESCAPE = re.compile(
    r"\\(?:[pP](?:\{\^?\w+\}|\w)|x(?:\{[0-9A-Fa-f]+\}|[0-9A-Fa-f]{2})|0[0-7]{0,2}|[1-7][0-7]{1,2}|.)", re.S
)
_CLASS = re.compile(r"\[\^?\]?(?:\[:\^?\w+:\]|\\(?:x\{[0-9A-Fa-f]+\}|.)|[^\]\\])*\]", re.S)
_PLACES = frozenset({"\\A", "\\z", "\\b", "\\B"})


class NotReadable(ValueError):
    """A part of RE2's syntax that is not supported here. The text says which."""


def parse(pattern: str) -> Node:
    """Raises NotReadable."""
    reader = _Reader(pattern)
    node = reader.choice("")
    if reader.at < len(pattern):
        raise NotReadable("a bracket too many")
    return node


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.at = 0

    def choice(self, flags: str) -> Node:
        """Up to the end, or the bracket that closes. Flags set in between hold to there."""
        branches: list[list[Node]] = [[]]
        while self.at < len(self._pattern) and self._pattern[self.at] != ")":
            rest = self._pattern[self.at]
            if rest == "|":
                self.at += 1
                branches.append([])
            elif (found := _FLAGS.match(self._pattern, self.at)) is not None and found[3] == ")":
                self.at = found.end()
                flags = _changed(flags, found)
            elif self._pattern.startswith("\\Q", self.at):
                branches[-1] += self._quoted(flags)
                self._repeat(branches[-1])
            else:
                branches[-1].append(self._item(flags))
                self._repeat(branches[-1])
        nodes = tuple(Sequence(tuple(branch)) for branch in branches)
        return nodes[0] if len(nodes) == 1 else Choice(nodes)

    def _item(self, flags: str) -> Node:
        character = self._pattern[self.at]
        if character == "(":
            return self._group(flags)
        if character == "[":
            return self._copied(_CLASS, flags)
        if character == "\\":
            return self._copied(_ESCAPE, flags)
        self.at += 1
        if character in "^$":
            return Atom(_flagged(character, flags), 0)
        return Atom(_flagged(character if character not in "{}" else "\\" + character, flags))

    def _group(self, flags: str) -> Node:
        if (found := _FLAGS.match(self._pattern, self.at)) is not None:
            flags = _changed(flags, found)
        elif (found := _NAME.match(self._pattern, self.at)) is None and self._pattern.startswith("(?", self.at):
            raise NotReadable("a group of this kind")
        self.at = found.end() if found is not None else self.at + 1
        node = self.choice(flags)
        self.at += 1
        return Sequence((Choice((node,)),))

    def _copied(self, form: re.Pattern[str], flags: str) -> Node:
        found = form.match(self._pattern, self.at)
        if found is None or "\\Q" in found[0] or found[0] == "\\C":
            raise NotReadable(f"'{self._pattern[self.at : self.at + 2]}' here")
        self.at = found.end()
        return Atom(_flagged(found[0], flags), 0 if found[0] in _PLACES else 1)

    def _quoted(self, flags: str) -> list[Node]:
        text, _, _ = self._pattern[self.at + 2 :].partition("\\E")
        self.at = min(self.at + len(text) + 4, len(self._pattern))
        return [Atom(_flagged(each if each.isalnum() or ord(each) > 127 else "\\" + each, flags)) for each in text]

    def _repeat(self, items: list[Node]) -> None:
        """Take the repetition that follows the last item, if one does."""
        while items and (bounds := self._bounds()) is not None:
            if self._pattern.startswith("?", self.at):
                self.at += 1
            items[-1] = Repeat(items[-1], *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        character = self._pattern[self.at : self.at + 1]
        if character and character in "*+?":
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[character]
        if (found := _COUNT.match(self._pattern, self.at)) is None:
            return None
        self.at = found.end()
        fewest = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else fewest
        return fewest, most


def _changed(flags: str, found: re.Match[str]) -> str:
    if "U" in found[1] or "U" in (found[2] or ""):
        raise NotReadable("the flag U")
    return "".join(sorted((set(flags) | set(found[1])) - set(found[2] or "")))


def _flagged(text: str, flags: str) -> str:
    return f"(?{flags}:{text})" if flags else text
