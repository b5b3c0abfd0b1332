"""Texts cut into tokens in any way, and what a filter lets out of them."""

from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st

from producer.guardrails.hold_back import HoldBack
from producer.guardrails.text_rules import TextRules


class Outcome(NamedTuple):
    """What was let out of an answer at each token, what the end let out, and whether it was blocked."""

    pieces: tuple[str, ...]
    rest: str
    is_blocked: bool

    @property
    def text(self) -> str:
        return "".join(self.pieces) + self.rest


def run(rules: TextRules, tokens: list[str]) -> Outcome:
    output_filter = HoldBack(rules, lambda rule: None)
    pieces = []
    for index, token in enumerate(tokens):
        released = output_filter.feed(index, token)
        pieces.append(released.text)
        if released.ended is not None:
            return Outcome(tuple(pieces), "", True)
    released = output_filter.flush(len(tokens) - 1)
    return Outcome(tuple(pieces), released.text, released.ended is not None)


def cut(text: str, places: list[int]) -> list[str]:
    """`text` in pieces, cut at `places`; the same place twice gives an empty piece."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


places = st.lists(st.integers(0, 400), max_size=12)
