"""Text to tokens and back, by the `tokenizers` library."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Markers:
    """`bos_id` is None when a prompt gets none. `bos_token` and `eos_token` are for templates, empty if unknown."""

    bos_id: int | None
    bos_token: str
    eos_token: str
    end_ids: frozenset[int]


class Vocabulary:
    """A tokenizer. `pieces` are the bytes of each token in output, one for each row of the embedding.

    Safe from any thread.
    """

    def __init__(self, backend: Any, pieces: Sequence[bytes], markers: Markers) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._pieces = list(pieces)
        self.vocab_size = len(self._pieces)
        self.bos_id = markers.bos_id
        self.end_ids = markers.end_ids
        self.bos_token = markers.bos_token
        self.eos_token = markers.eos_token

    @property
    def max_token_bytes(self) -> int:
        return max(map(len, self._pieces))

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """See `Tokenizer.encode`. No end token is appended."""
        text = text.encode(errors="replace").decode()
        token_ids = [self.bos_id] if add_bos and self.bos_id is not None else []
        with self._lock:
            self._backend.encode_special_tokens = not parse_special
            return token_ids + list(self._backend.encode(text, add_special_tokens=False).ids)

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id]

    def to_json(self) -> str:
        """The text of a `tokenizer.json`."""
        return str(self._backend.to_str())
