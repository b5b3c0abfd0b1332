"""How many tokens a text has for the model, told by its own vocabulary."""

from collections.abc import Callable
from pathlib import Path

from workers.checkpoints import open_checkpoint
from workers.runners.base import RunnerError

Count = Callable[[str], int]

# A mean may be off by this share and one token, as of a first token that one server adds and another does not.
TOLERANCE = 0.02


def token_counter(model: Path | None) -> Count | None:
    """None when there is no model, or it cannot be read here for lack of a library."""
    if model is None:
        return None
    try:
        checkpoint = open_checkpoint(model)
    except (RunnerError, ImportError):
        return None
    vocabulary = checkpoint.tokenizer
    checkpoint.close()
    return lambda text: len(vocabulary.encode(text, add_bos=True, parse_special=True))


def is_off(found: float, expected: float) -> bool:
    return abs(found - expected) > max(1.0, TOLERANCE * expected)
