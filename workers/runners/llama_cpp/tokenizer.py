"""The vocabulary inside a GGUF file."""

import ctypes
import threading
from typing import Any

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.library import Library
from workers.runners.llama_cpp.model import LlamaModel

_OVERFLOW = -(2**31)


class LlamaTokenizer:
    """Text to tokens and back. Safe from any thread; after `close` only `token_bytes` works.

    Every token's bytes are read once, at the start. A token stands for the same bytes wherever it is: the leading
    space of a SentencePiece word is a space, as it must be in a continuation.
    """

    def __init__(self, library: Library, model: LlamaModel) -> None:
        self._api = library.api
        self._vocab: Any = model.vocab
        self._lock = threading.Lock()
        self.vocab_size = int(self._api.llama_vocab_n_tokens(self._vocab))
        self._bytes = [self._piece(token_id, special=False) for token_id in range(self.vocab_size)]
        # End of text and of turn, by whatever names: what the library itself stops at.
        is_end = self._api.llama_vocab_is_eog
        self.end_ids = frozenset(token_id for token_id in range(self.vocab_size) if is_end(self._vocab, token_id))
        bos_id, eos_id = self._api.llama_vocab_bos(self._vocab), self._api.llama_vocab_eos(self._vocab)
        self.bos_token = self._text(bos_id)
        self.eos_token = self._text(eos_id)
        wants_bos = bos_id >= 0 and self._api.llama_vocab_get_add_bos(self._vocab)
        self.bos_id: int | None = int(bos_id) if wants_bos else None

    @property
    def max_token_bytes(self) -> int:
        return max(map(len, self._bytes))

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """See `Tokenizer.encode`. No end token is appended. Raises ValueError for a text beyond all counting."""
        data = text.encode(errors="replace")
        token_ids = [self.bos_id] if add_bos and self.bos_id is not None else []
        with self._lock:
            if self._vocab is None:
                raise RunnerError("the model is closed")
            return token_ids + self._tokenize(data, parse_special=parse_special)

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes[token_id]

    def close(self) -> None:
        """To be called before the model is closed."""
        with self._lock:
            self._vocab = None

    def _tokenize(self, data: bytes, *, parse_special: bool) -> list[int]:
        # Most tokens are longer than two bytes; where not, the first answer is the number needed.
        capacity = len(data) // 2 + 16
        while True:
            buffer = (self._api.llama_token * capacity)()
            count = self._api.llama_tokenize(self._vocab, data, len(data), buffer, capacity, False, parse_special)
            if count == _OVERFLOW:
                raise ValueError(f"a text of {len(data)} bytes is too long to tokenize")
            if count >= 0:
                return list(buffer[:count])
            capacity = -count

    def _piece(self, token_id: int, *, special: bool) -> bytes:
        capacity = 32
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            size = self._api.llama_token_to_piece(self._vocab, token_id, buffer, capacity, 0, special)
            if size >= 0:
                return buffer.raw[:size]
            capacity = -size

    def _text(self, token_id: int) -> str:
        return self._piece(token_id, special=True).decode(errors="replace") if token_id >= 0 else ""
