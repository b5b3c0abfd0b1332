"""Vocabularies of SentencePiece: characters merged over a whole text, `▁` for a space, bytes where all else fails."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.checkpoints.requirements import need
from workers.checkpoints.token_table import TokenTable, TokenType
from workers.checkpoints.tokenizer_backend import add_markers, new_backend

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "▁"


def sentencepiece_bpe(path: Path, table: TokenTable, scores: Sequence[float], add_space_prefix: bool) -> Any:
    """The library's tokenizer. Raises RunnerError."""
    library = need("tokenizers")
    unknown = next(iter(table.of_type(TokenType.UNKNOWN)), None)
    backend = new_backend(
        path,
        vocab=table.ids,
        merges=_merges(table, scores),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    steps = [library.normalizers.Replace(" ", _SPACE)]
    if add_space_prefix:
        steps.insert(0, library.normalizers.Prepend(_SPACE))
    backend.normalizer = library.normalizers.Sequence(steps)
    decoders = library.decoders
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    add_markers(backend, table)
    return backend


def sentencepiece_piece(text: str) -> bytes:
    """What a token stands for in the middle of a text."""
    match = _BYTE.fullmatch(text)
    return bytes.fromhex(match[1]) if match else text.replace(_SPACE, " ").encode()


def _merges(table: TokenTable, scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to make a word of two tokens, the word of the best score first: SentencePiece knows no pairs."""
    words = sorted(table.of_type(TokenType.NORMAL).items(), key=lambda word: -scores[word[1]])
    ids = table.ids
    return [
        (text[:cut], text[cut:])
        for text, _ in words
        for cut in range(1, len(text))
        if text[:cut] in ids and text[cut:] in ids
    ]
