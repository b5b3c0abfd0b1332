"""Stop strings in text that arrives in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from workers.engine.stop_strings import StopMatcher


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character, by definition."""
    for end in range(1, len(text) + 1):
        lengths = [len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if lengths:
            return text[: end - max(lengths)], True
    return text, False


def feed(matcher: StopMatcher, pieces: list[str]) -> tuple[str, bool]:
    shown = ""
    for piece in pieces:
        text, is_match = matcher.push(piece)
        shown += text
        if is_match:
            return shown, True
    return shown + matcher.flush(), False


short = st.text("ab€", min_size=1, max_size=4)


@given(st.lists(short, max_size=5), st.lists(st.text("ab€", max_size=5)))
def test_the_cut_depends_on_the_text_alone_not_on_the_pieces(stops: list[str], pieces: list[str]) -> None:
    assert feed(StopMatcher(stops), pieces) == reference("".join(pieces), stops)


@given(st.lists(short, min_size=1, max_size=4), st.text("ab€", max_size=30))
def test_no_more_is_held_back_than_may_begin_a_stop_string(stops: list[str], text: str) -> None:
    matcher = StopMatcher(stops)
    shown = ""
    for place, character in enumerate(text):
        more, is_match = matcher.push(character)
        shown += more
        if is_match:
            return
        seen = text[: place + 1]
        longest = max(k for k in range(len(seen) + 1) if any(s.startswith(seen[len(seen) - k :]) for s in stops))
        assert shown == seen[: len(seen) - longest]


def test_a_stop_string_inside_a_longer_one_is_found_when_the_longer_one_fails() -> None:
    assert feed(StopMatcher(["abcd", "bc"]), ["xab", "cx"]) == ("xa", True)


def test_of_two_that_complete_together_the_longer_cuts() -> None:
    assert feed(StopMatcher(["c", "abc"]), ["x", "abc"]) == ("x", True)


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopMatcher([]).push("abc") == ("abc", False)
    assert StopMatcher([""]).push("abc") == ("abc", False)
