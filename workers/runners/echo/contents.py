"""What the echo runner keeps in place of KV."""

from array import array
from collections.abc import Iterable

_WORD = (1 << 64) - 1


def mix(number: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    number = (number + 0x9E3779B97F4A7C15) & _WORD
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _WORD
    return number ^ (number >> 31)


class Contents:
    """The tokens of one handle and, for each position, a digest of all tokens up to it and of their positions."""

    __slots__ = ("_digests", "_tokens", "_weights")

    def __init__(self, weights: list[int], tokens: Iterable[int] = ()) -> None:
        """`weights` has a random 64-bit number for every position."""
        self._weights = weights
        self._tokens = array("I")
        self._digests = array("Q")
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        place = len(self._tokens)
        digest = self._digests[-1] if place else 0
        for token in tokens:
            digest = (digest + (token + 1) * self._weights[place]) & _WORD
            place += 1
            self._tokens.append(token)
            self._digests.append(digest)

    def truncate(self, num_tokens: int) -> None:
        del self._tokens[num_tokens:]
        del self._digests[num_tokens:]

    def copy(self, num_tokens: int) -> "Contents":
        return Contents(self._weights, self._tokens[:num_tokens])

    def digest(self, position: int) -> int:
        return self._digests[position]

    def last(self, position: int, count: int) -> list[int]:
        """Up to `count` tokens that end at `position`."""
        return self._tokens[max(0, position + 1 - count) : position + 1].tolist()

    def text(self, position: int) -> str:
        """Tokens up to `position` as a string with one character a token, for searching."""
        return self._tokens[: position + 1].tobytes().decode("utf-32-le")

    def to_bytes(self) -> bytes:
        return self._tokens.tobytes()


def tokens_of(data: bytes) -> list[int]:
    """The inverse of `Contents.to_bytes`."""
    tokens = array("I")
    tokens.frombytes(data)
    return tokens.tolist()
