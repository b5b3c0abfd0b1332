"""Random numbers that depend on (seed, token index) alone, so that another worker continues the same text."""

import numpy as np

_WORD = (1 << 64) - 1


class CounterDraws:
    """Uniform draws from Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    The key is the seed, the counter the token index. One generator is kept and its state set anew for each draw: a
    tenth of the price of constructing one. For one thread.
    """

    __slots__ = ("_bits", "_counter", "_key", "_state")

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._state = self._bits.state
        self._key = self._state["state"]["key"]
        self._counter = self._state["state"]["counter"]

    def uniform(self, seed: int, index: int) -> float:
        """A number in [0, 1) with 53 bits, the same for the same arguments. Seeds are taken modulo 2**128."""
        self._key[0] = seed & _WORD
        self._key[1] = (seed >> 64) & _WORD
        self._counter[0] = index
        self._bits.state = self._state
        return float((int(self._bits.random_raw()) >> 11) * 2.0**-53)
