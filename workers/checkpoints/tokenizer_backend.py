"""The `tokenizers` library's object behind a vocabulary."""

from pathlib import Path
from typing import Any

from workers.checkpoints.requirements import need
from workers.checkpoints.token_table import TokenTable, TokenType
from workers.runners.base import RunnerError


def new_backend(path: Path, **bpe: Any) -> Any:
    """A tokenizer with nothing but its merges. Raises RunnerError when they do not belong to the tokens."""
    library = need("tokenizers")
    try:
        return library.Tokenizer(library.models.BPE(**bpe))
    except Exception as error:
        # The library has no exceptions of its own.
        raise RunnerError(f"{path}: the vocabulary does not fit together: {error}") from None


def add_markers(backend: Any, table: TokenTable) -> None:
    """Control tokens are found in a text where that is asked for, the user's own always."""
    library = need("tokenizers")
    for kind in (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.USER_DEFINED):
        is_special = kind != TokenType.USER_DEFINED
        tokens = [library.AddedToken(text, special=is_special, normalized=False) for text in table.of_type(kind)]
        (backend.add_special_tokens if is_special else backend.add_tokens)(tokens)
