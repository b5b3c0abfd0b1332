"""Vocabularies that merge bytes within words, as GPT-2 began it."""

from pathlib import Path
from typing import Any

from workers.checkpoints import byte_level
from workers.checkpoints.pre_tokenizers import PreTokenizer
from workers.checkpoints.requirements import need
from workers.checkpoints.token_table import TokenTable
from workers.checkpoints.tokenizer_backend import add_markers, new_backend
from workers.runners.base import RunnerError


def byte_level_bpe(path: Path, table: TokenTable, merges: list[str], rules: PreTokenizer) -> Any:
    """The library's tokenizer. `merges` are pairs with a space between. Raises RunnerError."""
    library = need("tokenizers")
    pairs = [_pair(path, merge) for merge in merges]
    backend = new_backend(path, vocab=table.ids, merges=pairs, ignore_merges=rules.whole_words)
    steps = [_split(library, pattern, "isolated") for pattern in rules.patterns]
    steps.append(library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    absent = sorted(character for character in byte_level.ALPHABET if character not in table.ids)
    if absent:
        # A byte without a token is dropped, and what stands left and right of it does not become one word.
        steps.append(_split(library, f"[{''.join(map(_escaped, absent))}]", "removed"))
    backend.pre_tokenizer = library.pre_tokenizers.Sequence(steps)
    backend.decoder = library.decoders.ByteLevel()
    add_markers(backend, table)
    return backend


def byte_level_piece(text: str) -> bytes:
    """What a token stands for; a text out of the alphabet stands for itself."""
    piece = byte_level.to_bytes(text)
    return text.encode() if piece is None else piece


def _split(library: Any, pattern: str, behavior: str) -> Any:
    return library.pre_tokenizers.Split(library.Regex(pattern), behavior=behavior)


def _escaped(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"


def _pair(path: Path, merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise RunnerError(f"{path}: the merge {merge!r} is not a pair")
    return left, right
