"""The tokenizer of a model's folder."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workers.checkpoints.byte_level_bpe import byte_level_piece
from workers.checkpoints.end_tokens import END_NAMES, end_ids
from workers.checkpoints.json_file import read_json, read_json_if_there
from workers.checkpoints.requirements import need
from workers.checkpoints.sentencepiece_bpe import sentencepiece_piece
from workers.checkpoints.vocabulary import Markers, Vocabulary
from workers.runners.base import RunnerError

TOKENIZER = "tokenizer.json"
# Embeddings are rounded up to a multiple of some power of two; with fewer tokens the tokenizer is another model's.
_MIN_SHARE = 0.9


def read_folder_vocabulary(folder: Path, vocab_size: int) -> Vocabulary:
    """For `vocab_size` rows of embedding. Raises RunnerError."""
    path = folder / TOKENIZER
    if not path.is_file():
        raise RunnerError(f"{folder}: {TOKENIZER} is missing")
    tokens = _Tokens.read(path)
    if not _MIN_SHARE * vocab_size <= tokens.size <= vocab_size:
        raise RunnerError(f"{path}: the tokenizer has {tokens.size} tokens, but the embedding {vocab_size} rows")
    pieces = [b""] * vocab_size
    for text, token_id in tokens.ids.items():
        pieces[token_id] = tokens.piece(text, token_id)
    return Vocabulary(tokens.backend, pieces, _markers(folder, tokens))


class _Tokens(NamedTuple):
    """`silent`: control tokens. `added`: those found in a text as they are."""

    backend: Any
    ids: dict[str, int]
    added: frozenset[int]
    silent: frozenset[int]
    is_byte_level: bool

    @classmethod
    def read(cls, path: Path) -> "_Tokens":
        description = read_json(path)
        try:
            backend = need("tokenizers").Tokenizer.from_file(str(path))
        except Exception as error:
            # The library has no exceptions of its own.
            raise RunnerError(f"{path}: not a tokenizer: {error}") from None
        # A text is never cut or filled up here.
        backend.no_truncation()
        backend.no_padding()
        added = backend.get_added_tokens_decoder()
        silent = {token_id for token_id, token in added.items() if token.special or token.content in END_NAMES}
        is_byte_level = _is_byte_level(path, description)
        return cls(backend, backend.get_vocab(True), frozenset(added), frozenset(silent), is_byte_level)

    @property
    def size(self) -> int:
        return max(self.ids.values(), default=-1) + 1

    def piece(self, text: str, token_id: int) -> bytes:
        if token_id in self.silent:
            return b""
        if token_id in self.added:
            return text.encode()
        return byte_level_piece(text) if self.is_byte_level else sentencepiece_piece(text)


def _is_byte_level(path: Path, description: Mapping[str, Any]) -> bool:
    """Whether tokens are written in the byte-level alphabet; else they are text with `▁` for a space."""
    kinds = {step["type"]: step for step in _steps(description.get("decoder"))}
    if "ByteLevel" in kinds:
        return True
    replaces = kinds.get("Replace", {}).get("pattern") == {"String": "▁"}
    if replaces or "Metaspace" in kinds:
        return False
    found = ", ".join(kinds) or "none"
    raise RunnerError(f"{path}: the decoder {found} is not supported (byte level and SentencePiece are)")


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return
    yield decoder
    for step in decoder.get("decoders", ()):
        yield from _steps(step)


def _markers(folder: Path, tokens: _Tokens) -> Markers:
    tokenizer_config = read_json_if_there(folder / "tokenizer_config.json")
    named = read_json_if_there(folder / "special_tokens_map.json") | tokenizer_config
    config = read_json(folder / "config.json")
    generation = read_json_if_there(folder / "generation_config.json")
    texts = {token_id: text for text, token_id in tokens.ids.items()}

    def marker(name: str) -> str:
        value = named.get(f"{name}_token")
        text = value.get("content") if isinstance(value, dict) else value
        if text is None:
            token_id = next(iter(_ids(config.get(f"{name}_token_id"))), -1)
            text = texts.get(token_id, "")
        return str(text)

    bos_token, eos_token = marker("bos"), marker("eos")
    ends = [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id")), tokens.ids.get(eos_token)]
    for token_id in ends:
        if token_id is not None and token_id not in texts:
            raise RunnerError(f"{folder}: eos_token_id is {token_id}, which is no token of {TOKENIZER}")
    added = {text: token_id for text, token_id in tokens.ids.items() if token_id in tokens.added}
    bos_id = tokens.ids.get(bos_token)
    wants_bos = tokenizer_config.get("add_bos_token", _begins_with(tokens.backend, bos_id))
    return Markers(bos_id if wants_bos else None, bos_token, eos_token, end_ids(ends, added))


def _ids(value: Any) -> Iterable[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _begins_with(backend: Any, token_id: int | None) -> bool:
    """Whether the tokenizer itself puts this token before a text."""
    return token_id is not None and backend.encode("", add_special_tokens=True).ids[:1] == [token_id]
