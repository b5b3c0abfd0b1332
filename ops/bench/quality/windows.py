"""The fixed text: passages of our own of several kinds, each a window that begins without context."""

from pathlib import Path

from workers.runners.base import Tokenizer

_PASSAGES = Path(__file__).with_name("passages.txt")
_BETWEEN = "\n%%\n"


def passages() -> list[str]:
    return [text.strip() for text in _PASSAGES.read_text(encoding="utf-8").split(_BETWEEN)]


def windows(tokenizer: Tokenizer, num_tokens: int) -> list[list[int]]:
    """So many tokens of each passage, of a shorter one all that it has; with the model's first token where it wants
    one."""
    return [tokenizer.encode(text, add_bos=True, parse_special=False)[:num_tokens] for text in passages()]
