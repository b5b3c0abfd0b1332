"""One form for all spellings of a text: compatibility decomposition, case folding, no format characters, one space.

`fold_text` does it to a whole text at C speed, `fold_symbol` to one symbol of a text that was decomposed before. Both
give the same symbols, so what a prompt may not hold is exactly what an answer may not.
"""

import re
import sys
import unicodedata
from functools import lru_cache

SPACE = " "
# Zero-width spaces, soft hyphens, marks of direction: not seen, so passed over.
_FORMAT = re.compile(
    "[" + "".join(re.escape(chr(c)) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Cf") + "]+"
)


def fold_text(text: str) -> str:
    """Folded, whitespace runs as one space, none at the ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", _FORMAT.sub("", text))
        text = unicodedata.normalize("NFKD", text.casefold())
    return SPACE.join(text.casefold().split())


@lru_cache(8192)
def decompose(character: str) -> str:
    """The symbols of one character, not folded yet; none of a format character."""
    if unicodedata.category(character) == "Cf":
        return ""
    return unicodedata.normalize("NFKD", character)


@lru_cache(8192)
def fold_symbol(symbol: str) -> str:
    folded = unicodedata.normalize("NFKD", symbol.casefold())
    return "".join(SPACE if each.isspace() else each for each in folded)


@lru_cache(8192)
def combining_class(symbol: str) -> int:
    """More than 0 for marks, which are put in order behind what they stand on."""
    return unicodedata.combining(symbol)


@lru_cache(8192)
def is_word(symbol: str) -> bool:
    """Letters, marks, digits and `_`."""
    return symbol == "_" or unicodedata.category(symbol)[0] in "LMN"
