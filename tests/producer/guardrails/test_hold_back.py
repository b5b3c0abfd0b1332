"""Nothing of what is forbidden comes out, all else does, and how an answer is cut into tokens changes nothing."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from producer.guardrails.hold_back import MAX_HELD
from producer.guardrails.text_rules import TextRules
from tests.producer.guardrails.cutting import cut, places, run
from tests.support.counts import full_or

PHRASES = ("bad word", "Straße", "ab", "a b c", "++", "café au lait", "Ωμέγα")
RULES = TextRules(PHRASES, (r"\bsec\w*ret\b", r"\d{3}-\d{2}", r"(?i)x+y", r"^no$", "b[ab]*c"))
WORDS = (
    *PHRASES,
    "secret",
    "secessret",
    "sec",
    "123-45",
    "12-3",
    "xxy",
    "xX",
    "no",
    "bad",
    "wor",
    "Ａｂ",
    "strasse",
    "cafe\u0301 au  lait",
)
texts = st.lists(
    st.one_of(st.sampled_from(WORDS), st.text("abc dword-123xy+é\u0301\u00ad\n ß", max_size=6)), max_size=8
).map("".join)
counts = settings(max_examples=full_or(5000, reduced=300))


@counts
@given(texts, places)
@example("a bad  word", [3, 4, 5, 6, 7])
@example("secret", [1, 2, 3, 4, 5])
@example("bad abba", [1, 5])
def test_every_cut_lets_out_the_same(text: str, at: list[int]) -> None:
    whole = run(RULES, [text])
    pieces = run(RULES, cut(text, at))
    assert (pieces.text, pieces.is_blocked) == (whole.text, whole.is_blocked)
    single = run(RULES, list(text))
    assert (single.text, single.is_blocked) == (whole.text, whole.is_blocked)


@counts
@given(texts, places)
def test_what_is_refused_in_a_prompt_is_blocked_in_an_answer_and_nothing_else(text: str, at: list[int]) -> None:
    outcome = run(RULES, cut(text, at))
    assert outcome.is_blocked == (RULES.broken_by(text) is not None)
    if not outcome.is_blocked:
        assert outcome.text == text
    else:
        assert text.startswith(outcome.text)


@counts
@given(texts, st.sampled_from(("bad word", "BAD \n WORD", "ｂａｄ word", "ba\u00add word")), texts, places)
def test_nothing_of_a_phrase_comes_out_whatever_follows(before: str, phrase: str, after: str, at: list[int]) -> None:
    rules = TextRules(("bad word",), ())
    text = f"{before} {phrase} {after}"
    outcome = run(rules, cut(text, at))
    assert outcome.is_blocked
    if rules.broken_by(before) is None:
        assert outcome.text == f"{before} "


@counts
@given(texts, places)
def test_a_token_that_is_fed_says_how_much_was_let_out_by_then(text: str, at: list[int]) -> None:
    """What a second reader gets behind any token follows from the tokens alone."""
    tokens = cut(text, at)
    outcome = run(RULES, tokens)
    for num_tokens in range(len(outcome.pieces) + 1):
        assert run(RULES, tokens[:num_tokens]).pieces == outcome.pieces[:num_tokens]


def test_harmless_text_waits_no_longer_than_it_may_be_something() -> None:
    tokens = ["a ", "ba", "ll", " and ", "bad", " ", "luck", " x", "z ", "12", "-", "9 "]
    rules = TextRules(("bad word",), (r"\d{3}-\d{2}", "x+y"))
    assert run(rules, tokens).pieces == ("a ", "", "ball", " and ", "", "", "bad luck", " ", "xz ", "", "12-", "9 ")


def test_a_word_waits_for_its_end() -> None:
    rules = TextRules(("ass",), ())
    assert run(rules, ["class", " ass", "et", " ass", "!"]).text == "class asset "
    assert run(rules, ["an ass"]).is_blocked
    assert not run(rules, ["an assassin"]).is_blocked


def test_a_pattern_without_bound_does_not_hold_for_ever() -> None:
    rules = TextRules((), ("(?s)begin.*end",))
    tokens = ["say begin ", *["x" * 100] * 60]
    outcome = run(rules, tokens)
    waiting = MAX_HELD // 100
    assert outcome.pieces[:waiting] == ("say ", *[""] * (waiting - 1))
    assert not outcome.is_blocked and outcome.text == "".join(tokens) and outcome.rest == ""
    assert run(rules, ["say begin ", "x" * 100, " the ", "end", "."]).text == "say "


def test_marks_in_another_order_are_the_same_word() -> None:
    rules = TextRules(("a\u0323\u0301b",), ())
    assert run(rules, ["x a\u0301", "\u0323", "b ", "y"]).text == "x "
    assert run(rules, ["x a\u0301", "\u0323", "c y"]).text == "x a\u0301\u0323c y"
