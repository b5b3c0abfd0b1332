"""The tokenizer of a GGUF file, against llama.cpp's on the same file."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.counts import full_or
from tests.workers.checkpoints.gguf_models import byte_level_metadata
from tests.workers.runners.llama_cpp.gguf_file import SENTENCEPIECE_WORDS, Value, write_gguf, write_tiny_model
from workers.checkpoints import Checkpoint, open_checkpoint
from workers.checkpoints.gguf_header import read_header
from workers.checkpoints.gguf_vocabulary import read_vocabulary
from workers.checkpoints.mapping import map_file
from workers.checkpoints.vocabulary import Vocabulary
from workers.runners.base import Tokenizer
from workers.runners.llama_cpp.library import load_library
from workers.runners.llama_cpp.tokenizer import LlamaTokenizer

pytestmark = pytest.mark.llama

MARKERS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<repo_name>", "</s>", "<s>", "<tool>", "<|", "|>"]
PIECES = [
    "the ",
    "Paris",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "'s",
    "'LL",
    "1",
    "2024",
    "☃",
    "é",
    "日本",
    "🙂",
    "\0",
    "\u3000",
    ".",
]
# A lone surrogate is what clients' JSON can hold and UTF-8 cannot.
WRITTEN = st.lists(st.sampled_from(MARKERS + PIECES)).map("".join)
TEXTS = st.text(max_size=100) | st.text(st.characters(), max_size=60) | WRITTEN
# Of the vocabularies' own letters, so that merges happen.
WORDS = st.lists(st.sampled_from([*SENTENCEPIECE_WORDS, " ", "▁", "<s>", "<tool>", "é", "z"])).map("".join)
examples = settings(
    max_examples=full_or(2000, reduced=150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@contextmanager
def llama_cpp_tokenizer(path: Path) -> Iterator[LlamaTokenizer]:
    """llama.cpp's reading of a file's vocabulary, without its tensors."""
    library = load_library()
    params = library.api.llama_model_default_params()
    params.vocab_only = True
    model = library.api.llama_model_load_from_file(bytes(path), params)
    assert model
    vocab = library.api.llama_model_get_vocab(model)
    tokenizer = LlamaTokenizer(library, SimpleNamespace(vocab=vocab))  # type: ignore[arg-type]
    yield tokenizer
    tokenizer.close()
    library.api.llama_model_free(ctypes.c_void_p(model) if isinstance(model, int) else model)


def vocabulary(path: Path) -> Vocabulary:
    metadata = read_header(path, map_file(path)).metadata
    return read_vocabulary(path, metadata, len(metadata["tokenizer.ggml.tokens"]))


def assert_same_tokens(ours: Tokenizer, theirs: Tokenizer, text: str) -> None:
    for parse_special in (True, False):
        expected = theirs.encode(text, add_bos=True, parse_special=parse_special)
        assert ours.encode(text, add_bos=True, parse_special=parse_special) == expected


def assert_same_facts(ours: Vocabulary, theirs: LlamaTokenizer) -> None:
    assert ours.vocab_size == theirs.vocab_size
    assert [ours.token_bytes(token_id) for token_id in range(ours.vocab_size)] == [
        theirs.token_bytes(token_id) for token_id in range(theirs.vocab_size)
    ]
    assert (ours.bos_id, ours.bos_token, ours.eos_token) == (theirs.bos_id, theirs.bos_token, theirs.eos_token)
    assert ours.end_ids == theirs.end_ids
    assert ours.max_token_bytes == theirs.max_token_bytes


@pytest.fixture(scope="module")
def theirs(real_model: Path) -> Iterator[LlamaTokenizer]:
    with llama_cpp_tokenizer(real_model) as tokenizer:
        yield tokenizer


@pytest.fixture(scope="module")
def sentencepiece(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vocabulary, Tokenizer]]:
    path = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")
    with llama_cpp_tokenizer(path) as tokenizer:
        yield open_checkpoint(path).tokenizer, tokenizer


def test_the_real_vocabulary_is_llama_cpps(real: Checkpoint, theirs: LlamaTokenizer) -> None:
    assert_same_facts(real.tokenizer, theirs)
    assert len(real.tokenizer.end_ids) > 1


@examples
@given(TEXTS)
def test_the_real_tokens_are_llama_cpps(real: Checkpoint, theirs: LlamaTokenizer, text: str) -> None:
    assert_same_tokens(real.tokenizer, theirs, text)


def test_every_character_has_llama_cpps_tokens(real: Checkpoint, theirs: LlamaTokenizer) -> None:
    step = full_or(1, reduced=37)
    characters = [chr(code) for code in range(0, 0x30000, step) if not 0xD800 <= code < 0xE000]
    for character in characters:
        text = f"a{character}b {character}{character}1"
        expected = theirs.encode(text, add_bos=False, parse_special=False)
        assert real.tokenizer.encode(text, add_bos=False, parse_special=False) == expected


def test_a_marker_is_a_token_only_where_that_is_asked_for(real: Checkpoint) -> None:
    encode = real.tokenizer.encode
    assert len(encode("<|im_end|>", add_bos=False, parse_special=True)) == 1
    assert len(encode("<|im_end|>", add_bos=False, parse_special=False)) > 1
    assert len(encode("<|im_end|>", add_bos=False, parse_special=True)) == 1


def test_a_sentencepiece_vocabulary_is_llama_cpps(sentencepiece: tuple[Vocabulary, LlamaTokenizer]) -> None:
    assert_same_facts(*sentencepiece)
    assert sentencepiece[0].bos_id == 1


@examples
@given(TEXTS | WORDS)
def test_sentencepiece_tokens_are_llama_cpps(sentencepiece: tuple[Vocabulary, LlamaTokenizer], text: str) -> None:
    assert_same_tokens(*sentencepiece, text)


def test_sentencepiece_without_a_space_before_a_text(real_model: Path, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf", tokenizer__ggml__add_space_prefix=False)
    with llama_cpp_tokenizer(path) as theirs:
        for text in ("the is", " the", "<s>the", ""):
            assert_same_tokens(vocabulary(path), theirs, text)


@pytest.mark.parametrize("pre", ["default", "gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "tekken"])
def test_each_pre_tokenizer_cuts_as_llama_cpp_does(real_model: Path, tmp_path: Path, pre: str) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", vocabulary_only(pre), {})
    ours = vocabulary(path)
    # Of tekken llama.cpp knows upper and lower case in ASCII only.
    texts = st.text(st.characters(max_codepoint=0x7F), max_size=80) if pre == "tekken" else TEXTS
    with llama_cpp_tokenizer(path) as theirs:
        assert_same_facts(ours, theirs)

        @settings(max_examples=full_or(1000, reduced=100), deadline=None)
        @given(texts)
        def check(text: str) -> None:
            assert_same_tokens(ours, theirs, text)

        check()


def test_other_makers_markers_are_known_for_what_they_are(real_model: Path, tmp_path: Path) -> None:
    added = ["<|fim_prefix|>", "<|fim_pad|>", "<|eot_id|>", "<|file_sep|>", "<think>"]
    metadata = vocabulary_only("qwen2")
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(kinds, list)
    metadata |= {"tokenizer.ggml.tokens": [*tokens, *added], "tokenizer.ggml.token_type": [*kinds, 4, 4, 4, 1, 4]}
    path = write_gguf(tmp_path / "tiny.gguf", metadata, {})
    ours = vocabulary(path)
    with llama_cpp_tokenizer(path) as theirs:
        assert_same_facts(ours, theirs)
        assert_same_tokens(ours, theirs, "<think>a<|fim_prefix|>b<|eot_id|>")


def vocabulary_only(pre: str) -> dict[str, Value]:
    return {"general.architecture": "llama", **byte_level_metadata(pre)}
