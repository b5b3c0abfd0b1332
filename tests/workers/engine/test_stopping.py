"""What each token releases, and which one is the last."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import FinishReason
from schemas.requests import SamplingParams
from workers.engine.stopping import Stopping
from workers.runners.echo.tokenizer import EOS, IM_END, VOCAB_SIZE, ByteTokenizer


def read(token_ids: list[int], *, max_tokens: int = 1000, stop: tuple[str, ...] = (), ignore_eos: bool = False):
    """Pieces up to the end, and the reason."""
    stopping = Stopping(ByteTokenizer(), SamplingParams(0, stop=stop, ignore_eos=ignore_eos), max_tokens)
    pieces = []
    for token_id in token_ids:
        text, reason = stopping.push(token_id)
        pieces.append(text)
        if reason is not None:
            return pieces, reason
    return pieces, None


tokens = st.lists(st.one_of(st.sampled_from(list("aab€é".encode())), st.integers(0, VOCAB_SIZE - 1)), max_size=40)
stops = st.lists(st.sampled_from(["ab", "ba", "é", "aaab", "b€", "\ufffd"]), max_size=3).map(tuple)


@given(tokens, stops, st.integers(1, 40), st.booleans(), st.data())
def test_a_prefix_of_the_tokens_gives_the_same_pieces(token_ids, stop, max_tokens, ignore_eos, data) -> None:
    whole, _ = read(token_ids, max_tokens=max_tokens, stop=stop, ignore_eos=ignore_eos)
    cut = data.draw(st.integers(0, len(token_ids)))
    part, _ = read(token_ids[:cut], max_tokens=max_tokens, stop=stop, ignore_eos=ignore_eos)
    assert part == whole[: len(part)]


@given(tokens, stops, st.integers(1, 40), st.booleans())
def test_the_pieces_are_the_text_up_to_the_end(token_ids, stop, max_tokens, ignore_eos) -> None:
    pieces, reason = read(token_ids, max_tokens=max_tokens, stop=stop, ignore_eos=ignore_eos)
    if reason is None:
        return
    taken = token_ids[: len(pieces)]
    text = bytes(token_id for token_id in taken if token_id < 256).decode("utf-8", "replace")
    ends = [text.find(each) for each in stop if each in text]
    if ends:
        assert reason is FinishReason.STOP
        assert text.startswith("".join(pieces))
        assert not any(each in "".join(pieces) for each in stop)
    else:
        assert "".join(pieces) == text


def test_an_end_token_ends_with_no_text_of_its_own() -> None:
    for end in (EOS, IM_END):
        assert read([*b"hi", end, *b"more"]) == (["h", "i", ""], FinishReason.STOP)


def test_an_end_token_releases_what_a_stop_string_held_back() -> None:
    assert read([*b"a##", EOS], stop=("###",)) == (["a", "", "", "##"], FinishReason.STOP)


def test_ignored_end_tokens_neither_stop_nor_show() -> None:
    assert read([*b"a", EOS, IM_END, *b"b"], ignore_eos=True) == (["a", "", "", "b"], None)


def test_the_last_token_releases_everything_at_max_tokens() -> None:
    assert read(list(b"ab#"), max_tokens=3, stop=("##",)) == (["a", "b", "#"], FinishReason.LENGTH)
    assert read(list("a€".encode()[:3]), max_tokens=3) == (["a", "", "\ufffd"], FinishReason.LENGTH)


def test_a_stop_string_over_several_tokens_is_cut_whole() -> None:
    assert read(list(b"one\n\nUser: x"), stop=("\n\nUser:",)) == (["o", "n", "e", *[""] * 7], FinishReason.STOP)


def test_a_stop_string_that_completes_with_the_last_allowed_token_is_a_stop() -> None:
    assert read(list(b"a#"), max_tokens=2, stop=("#",)) == (["a", ""], FinishReason.STOP)
