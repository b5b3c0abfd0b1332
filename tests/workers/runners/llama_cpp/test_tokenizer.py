"""Against llama.cpp's own detokenizer, on a byte-level vocabulary and on a SentencePiece one."""

import ctypes
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.counts import full_or
from tests.workers.runners.llama_cpp.conftest import OpenModel, by_default
from tests.workers.runners.llama_cpp.driver import Driver
from tests.workers.runners.llama_cpp.gguf_file import write_tiny_model
from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.llama_cpp.runner import LlamaCppRunner
from workers.runners.llama_cpp.tokenizer import LlamaTokenizer

pytestmark = pytest.mark.llama

# The real vocabulary has no token for some bytes: most control characters, and what begins planes 4 and up.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\0", max_codepoint=0x3FFFF)
TEXTS = st.text(CHARACTERS, max_size=200)
# Markers of either vocabulary, in the middle of what users write.
TEMPTING = st.lists(
    st.sampled_from(["<|im_end|>", "<|im_start|>", "</s>", "<s>", "the ", "Paris", "\n", "\0", "☃"])
).map("".join)
examples = settings(
    max_examples=full_or(500, reduced=100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["byte level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> LlamaTokenizer:
    driver: Driver = request.getfixturevalue("real" if request.param == "byte level" else "tiny")
    assert isinstance(driver.tokenizer, LlamaTokenizer)
    return driver.tokenizer


def detokenize(tokenizer: LlamaTokenizer, token_ids: list[int]) -> bytes:
    api = import_module("llama_cpp.llama_cpp")
    tokens = (api.llama_token * len(token_ids))(*token_ids)
    buffer = ctypes.create_string_buffer(100 * len(token_ids) + 1)
    args = (tokenizer._vocab, tokens, len(token_ids), buffer, len(buffer), False, False)
    size = api.llama_detokenize(*args)
    return buffer.raw[:size]


def own_bytes(tokenizer: LlamaTokenizer, token_ids: list[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, token_ids))


@examples
@given(TEXTS | TEMPTING)
def test_text_survives_the_round_trip(tokenizer: LlamaTokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text, add_bos=False, parse_special=False)
    # SentencePiece writes a space before a text.
    assert own_bytes(tokenizer, token_ids).decode() in (text, f" {text}")


@examples
@given(TEXTS | TEMPTING)
def test_a_continuation_has_the_bytes_that_llama_cpp_gives_it(tokenizer: LlamaTokenizer, text: str) -> None:
    prompt = tokenizer.encode("the", add_bos=True, parse_special=True)
    token_ids = tokenizer.encode(text, add_bos=False, parse_special=True)
    together = detokenize(tokenizer, prompt + token_ids)
    assert together == detokenize(tokenizer, prompt) + own_bytes(tokenizer, token_ids)


@examples
@given(st.data())
def test_any_tokens_have_the_bytes_that_llama_cpp_gives_them(tokenizer: LlamaTokenizer, data: st.DataObject) -> None:
    token_ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), min_size=1, max_size=20))
    prompt = tokenizer.encode("the", add_bos=False, parse_special=False)
    together = detokenize(tokenizer, prompt + token_ids)
    assert together == detokenize(tokenizer, prompt) + own_bytes(tokenizer, token_ids)


@examples
@given(TEMPTING)
def test_markers_in_plain_text_stay_text(tokenizer: LlamaTokenizer, text: str) -> None:
    token_ids = tokenizer.encode(text, add_bos=False, parse_special=False)
    assert tokenizer.end_ids.isdisjoint(token_ids)
    assert all(tokenizer.token_bytes(token_id) for token_id in token_ids)


def test_markers_are_control_tokens_where_they_may_be(real: Driver) -> None:
    token_ids = real.tokenizer.encode("<|im_start|>user<|im_end|>", add_bos=False, parse_special=True)
    assert len(token_ids) == 3
    assert token_ids[-1] in real.tokenizer.end_ids
    assert real.text(token_ids) == "user"


def test_a_character_of_several_tokens_comes_out_whole(tiny: Driver) -> None:
    token_ids = tiny.tokenizer.encode("☃", add_bos=False, parse_special=False)
    assert [tiny.tokenizer.token_bytes(token_id) for token_id in token_ids[-3:]] == [b"\xe2", b"\x98", b"\x83"]


def test_end_of_text_and_end_of_turn_both_end(tiny: Driver, real: Driver) -> None:
    assert tiny.tokenizer.end_ids == {2, 3}
    ends = real.tokenizer.encode("<|im_end|><|endoftext|>", add_bos=False, parse_special=True)
    assert set(ends) <= real.tokenizer.end_ids


def test_bos_comes_only_where_the_vocabulary_wants_it(tiny: Driver, real: Driver) -> None:
    assert tiny.tokenizer.bos_id == 1
    assert tiny.facts.bos_token == "<s>"
    assert tiny.tokenizer.encode("is", add_bos=True, parse_special=True)[:1] == [1]
    assert 1 not in tiny.tokenizer.encode("is", add_bos=False, parse_special=True)
    assert real.tokenizer.bos_id is None
    assert real.facts.bos_token == "<|im_start|>"
    plain = real.tokenizer.encode("is", add_bos=False, parse_special=True)
    assert real.tokenizer.encode("is", add_bos=True, parse_special=True) == plain


def test_no_end_token_is_appended(open_model: OpenModel, tmp_path: Path, llama_cpp_installed: None) -> None:
    path = write_tiny_model(tmp_path / "eos.gguf", tokenizer__ggml__add_eos_token=True)
    driver = open_model(path, context=256, sequences=1)
    token_ids = driver.tokenizer.encode("is", add_bos=True, parse_special=True)
    assert driver.tokenizer.end_ids.isdisjoint(token_ids)


def test_no_token_is_longer_than_the_facts_say(tokenizer: LlamaTokenizer) -> None:
    longest = max(len(tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.vocab_size))
    assert tokenizer.max_token_bytes == longest


def test_a_long_text_of_single_byte_tokens_fits_the_buffer(tiny: Driver) -> None:
    token_ids = tiny.tokenizer.encode("☃" * 1000, add_bos=False, parse_special=False)
    assert tiny.text(token_ids).removeprefix(" ") == "☃" * 1000


def test_lone_surrogates_do_not_raise(real: Driver) -> None:
    assert real.text(real.tokenizer.encode("a\ud800b", add_bos=False, parse_special=False)) == "a?b"


def test_after_close_nothing_is_encoded(tiny_model: Path, cache_file: Path) -> None:
    runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
    tokenizer = runner.open(RunnerSpec("model", str(tiny_model), context=256, sequences=1)).facts.tokenizer
    runner.close()
    with pytest.raises(RunnerError, match="closed"):
        tokenizer.encode("is", add_bos=False, parse_special=False)
    assert tokenizer.token_bytes(4) == b"<tool>"
