"""The vocabulary inside a GGUF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.checkpoints.byte_level_bpe import byte_level_bpe, byte_level_piece
from workers.checkpoints.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from workers.checkpoints.sentencepiece_bpe import sentencepiece_bpe, sentencepiece_piece
from workers.checkpoints.token_table import TokenType, read_markers, read_table
from workers.checkpoints.vocabulary import Vocabulary
from workers.runners.base import RunnerError

_BYTE_LEVEL, _SENTENCEPIECE = "gpt2", "llama"
_SILENT = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED)


def read_vocabulary(path: Path, metadata: Mapping[str, Any], vocab_size: int) -> Vocabulary:
    """For `vocab_size` rows of embedding. Raises RunnerError."""
    model = metadata.get("tokenizer.ggml.model")
    if model not in (_BYTE_LEVEL, _SENTENCEPIECE):
        raise RunnerError(f"{path}: the tokenizer {model!r} is not supported (gpt2 and llama are)")
    table = read_table(path, metadata, vocab_size)
    if model == _BYTE_LEVEL:
        rules = _pre_tokenizer(path, metadata)
        merges = _array(path, metadata, "merges", None)
        backend = byte_level_bpe(path, table, merges, rules)
        adds_bos, piece = rules.adds_bos, byte_level_piece
    else:
        scores = _array(path, metadata, "scores", vocab_size)
        backend = sentencepiece_bpe(path, table, scores, metadata.get("tokenizer.ggml.add_space_prefix", True))
        adds_bos, piece = True, sentencepiece_piece
    pieces = [
        b"" if kind in _SILENT else text.encode() if kind == TokenType.USER_DEFINED else piece(text)
        for text, kind in zip(table.texts, table.types, strict=True)
    ]
    return Vocabulary(backend, pieces, read_markers(path, metadata, table, adds_bos=adds_bos))


def _pre_tokenizer(path: Path, metadata: Mapping[str, Any]) -> PreTokenizer:
    name = metadata.get("tokenizer.ggml.pre", "default")
    found = PRE_TOKENIZERS.get(name)
    if found is None:
        raise RunnerError(f"{path}: the pre-tokenizer {name!r} is not supported")
    return found


def _array(path: Path, metadata: Mapping[str, Any], name: str, length: int | None) -> Any:
    values = metadata.get(f"tokenizer.ggml.{name}")
    if values is None or not hasattr(values, "__len__"):
        raise RunnerError(f"{path}: metadata tokenizer.ggml.{name} is missing")
    if length is not None and len(values) != length:
        raise RunnerError(f"{path}: {len(values)} {name} for {length} tokens")
    return values
