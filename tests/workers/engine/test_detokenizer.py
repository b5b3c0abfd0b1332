"""Bytes to text, token by token."""

from hypothesis import given
from hypothesis import strategies as st

from workers.engine.detokenizer import Detokenizer


class Bytes:
    """Token i stands for the i-th of some byte strings."""

    bos_id = None
    end_ids: frozenset[int] = frozenset()

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = tokens
        self.vocab_size = len(tokens)

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        raise NotImplementedError

    def token_bytes(self, token_id: int) -> bytes:
        return self._tokens[token_id]


def pieces_of(tokens: list[bytes]) -> list[str]:
    detokenizer = Detokenizer(Bytes(tokens))
    return [detokenizer.push(token_id) for token_id in range(len(tokens))] + [detokenizer.flush()]


# Bytes around the edges of UTF-8: leads of every length, overlong and surrogate forms, beyond U+10FFFF.
awkward = st.sampled_from(
    [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5]
)
some_bytes = st.lists(st.one_of(awkward, st.integers(0, 255)), max_size=4).map(bytes)


@given(st.lists(some_bytes, max_size=12))
def test_any_bytes_give_what_decoding_the_whole_gives(tokens: list[bytes]) -> None:
    assert "".join(pieces_of(tokens)) == b"".join(tokens).decode("utf-8", "replace")


@given(st.text(max_size=20), st.data())
def test_valid_text_is_never_shown_with_a_replacement_character(text: str, data: st.DataObject) -> None:
    raw = text.replace("\ufffd", "").encode("utf-8", "ignore")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    tokens = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert not any("\ufffd" in piece for piece in pieces_of(tokens))


def test_a_character_is_released_by_the_token_that_completes_it() -> None:
    assert pieces_of([b"a\xe2", b"\x82", b"\xacb"]) == ["a", "", "€b", ""]
