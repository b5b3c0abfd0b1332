"""Token ids to text, as they come."""

import codecs

from workers.runners.base import Tokenizer


class Detokenizer:
    """Decodes one sequence's tokens. A character is released by the token that completes it.

    What it has returned, with `flush()` at the end, is what `bytes.decode("utf-8", "replace")` of all bytes gives.
    """

    __slots__ = ("_decoder", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What an unfinished character at the end becomes; nothing may be pushed after it."""
        return self._decoder.decode(b"", final=True)
