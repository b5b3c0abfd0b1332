"""The tokens of a GGUF file: texts, kinds, and which of them are markers."""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from workers.checkpoints.end_tokens import END_NAMES, end_ids
from workers.checkpoints.vocabulary import Markers
from workers.runners.base import RunnerError

# Around a gap to fill in code. Like the ends, they are not always marked as what they are.
_INFILL_NAMES = frozenset(
    (
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"),
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"),
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"),
    )
)


class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class TokenTable(NamedTuple):
    """`texts` as the file has them, `types` of TokenType, `ids` by text."""

    texts: list[str]
    types: list[int]
    ids: dict[str, int]

    def of_type(self, kind: TokenType) -> dict[str, int]:
        return {text: token_id for text, token_id in self.ids.items() if self.types[token_id] == kind}


def read_table(path: Path, metadata: Mapping[str, Any], vocab_size: int) -> TokenTable:
    """For `vocab_size` rows of embedding. Raises RunnerError."""
    texts = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(texts, list) or not texts:
        raise RunnerError(f"{path}: metadata tokenizer.ggml.tokens is missing")
    if len(texts) != vocab_size:
        raise RunnerError(f"{path}: the tokenizer has {len(texts)} tokens, but the embedding {vocab_size} rows")
    types = metadata.get("tokenizer.ggml.token_type")
    types = [int(TokenType.NORMAL)] * len(texts) if types is None else types.tolist()
    if len(types) != len(texts):
        raise RunnerError(f"{path}: {len(types)} token types for {len(texts)} tokens")
    texts = [text or f"[EMPTY_{token_id}]" for token_id, text in enumerate(texts)]
    ids = {text: token_id for token_id, text in enumerate(texts)}
    if len(ids) != len(texts):
        twice = next(text for token_id, text in enumerate(texts) if ids[text] != token_id)
        raise RunnerError(f"{path}: token {twice!r} is in the vocabulary twice")
    for text in (END_NAMES | _INFILL_NAMES) & ids.keys():
        types[ids[text]] = int(TokenType.CONTROL)
    return TokenTable(texts, types, ids)


def read_markers(path: Path, metadata: Mapping[str, Any], table: TokenTable, *, adds_bos: bool) -> Markers:
    """`adds_bos`: whether a prompt gets one where the file does not say. Raises RunnerError."""

    def special(name: str) -> int | None:
        token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token_id is None:
            return None
        if not isinstance(token_id, int) or not 0 <= token_id < len(table.texts):
            raise RunnerError(f"{path}: tokenizer.ggml.{name}_token_id is {token_id}, which is no token")
        return token_id

    def text(token_id: int | None) -> str:
        return "" if token_id is None else table.texts[token_id]

    bos_id, eos_id = special("bos"), special("eos")
    wants_bos = metadata.get("tokenizer.ggml.add_bos_token", adds_bos)
    ends = end_ids((eos_id, special("eot"), special("eom")), table.of_type(TokenType.CONTROL))
    return Markers(bos_id if wants_bos else None, text(bos_id), text(eos_id), ends)
