"""Expressions are read and written again without a change of meaning, and their beginnings are all beginnings."""

import re

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.guardrails.patterns import check_pattern, compile_pattern
from producer.guardrails.text_rules import TextRules
from tests.producer.guardrails.cutting import cut, places, run
from tests.support.counts import full_or

counts = settings(max_examples=full_or(5000, reduced=250))
atoms = st.sampled_from(
    [
        "a",
        "b",
        "c",
        ".",
        "[ab]",
        "[^a]",
        "\\d",
        "\\b",
        "^",
        "$",
        "(?i:B)",
        "\\x61",
        "\\Qa.\\E",
        "(?s:.)",
        "[[:alpha:]]",
        "-",
    ]
)
repeats = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "+?"])
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, repeats).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
        inner.map(lambda part: f"({part})"),
        inner.map(lambda part: f"(?:c(?i){part})"),
    ),
    max_leaves=6,
)
texts = st.text("abcB1- \n", max_size=8)


@counts
@given(expressions, texts)
def test_reading_and_writing_changes_nothing(pattern: str, text: str) -> None:
    try:
        node = check_pattern(pattern)
    except ValueError as error:
        assert "empty text" in str(error) or "repetition" in str(error)
        return
    again = compile_pattern(node.whole())
    original = compile_pattern(pattern)
    assert (again.fullmatch(text) is None) == (original.fullmatch(text) is None)
    assert (again.search(text) is None) == (original.search(text) is None)


@counts
@given(expressions, texts)
def test_every_beginning_of_a_match_is_known_for_one(pattern: str, text: str) -> None:
    try:
        node = check_pattern(pattern)
    except ValueError:
        return
    beginnings = compile_pattern(f"(?:{node.beginnings()}|{node.whole()})\\z")
    found = compile_pattern(pattern).search(text)
    if found is None:
        return
    start, end = found.span()
    for length in range(start, end + 1):
        begun = beginnings.search(text[:length])
        assert begun is not None and begun.start() <= start


@counts
@given(expressions, texts, places)
def test_any_expression_blocks_the_same_however_an_answer_is_cut(pattern: str, text: str, at: list[int]) -> None:
    try:
        rules = TextRules((), (pattern, "a-b"))
    except ValueError:
        return
    outcome = run(rules, cut(text, at))
    assert outcome.is_blocked == (rules.broken_by(text) is not None)
    assert outcome[2:] == run(rules, list(text))[2:] and outcome.text == run(rules, list(text)).text
    if not outcome.is_blocked:
        assert outcome.text == text


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing )"),
        ("a*", "empty text"),
        ("\\b", "empty text"),
        ("", "empty text"),
        ("(?=a)", "perl operator"),
        ("(a)\\1", "escape"),
        ("(?U)a", "flag U"),
        ("\\C", "not supported"),
        ("x" * 1001, "at most 1000"),
        ("(?:a{1000}){1000}", "repetition"),
    ],
)
def test_what_is_no_usable_expression_is_named(pattern: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        TextRules((), ("fine", pattern))
    assert str(caught.value).startswith("patterns[1]: ") and "\n" not in str(caught.value)


def test_an_expression_that_explodes_elsewhere_is_linear_here() -> None:
    """Elsewhere this would not end before the test's time is up."""
    rules = TextRules((), (r"(a+)+$", r"(a|aa)+b"))
    assert rules.broken_by("a" * 50_000 + "!") is None
    outcome = run(rules, ["a" * 20] * 150 + ["!"])
    assert not outcome.is_blocked


def test_re2_takes_what_is_before_a_place_into_account() -> None:
    pattern = re2.compile(r"\bno")
    assert pattern.search(b"xno", 1) is None and pattern.search(b" no", 1) is not None
    assert re2.compile("^no").search(b" no", 1) is None
