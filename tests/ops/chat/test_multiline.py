"""What was typed in several lines."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.chat.multiline import is_open, joined
from ops.chat.plain_lines import PlainLines


@pytest.mark.parametrize(
    ("typed", "turns"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one\\\ntwo\\\nthree\nfour", ["one\ntwo\nthree", "four"]),
        ('"""\none\n\ntwo\n"""\nnext\n', ["one\n\ntwo", "next"]),
        ('"""one line"""\n', ["one line"]),
        ('"""never\nclosed', ["never\nclosed"]),
        ("open\\", ["open"]),
        ("\r\nx\r\n", ["", "x"]),
        ("", []),
    ],
)
def test_turns_of_a_pipe(typed: str, turns: list[str]) -> None:
    lines = PlainLines(io.StringIO(typed, newline=""))
    assert list(iter_turns(lines)) == turns


def iter_turns(lines: PlainLines) -> list[str]:
    found = []
    while True:
        try:
            found.append(lines.read())
        except EOFError:
            return found


@given(st.text(alphabet='ab"\\\n ', max_size=20))
def test_plain_text_means_itself(text: str) -> None:
    if not is_open(text) and "\\\n" not in text and not text.strip().startswith('"""'):
        assert joined(text) == text
