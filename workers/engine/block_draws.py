"""Drawing for many rows at once: small vocabularies pay for calls, not for arithmetic."""

import numpy as np
import numpy.typing as npt

from workers.runners.base import FloatArray

_BLOCK = 256
# Rows drawn together fill about this many weights, which a core's own cache still holds.
_CHUNK_WEIGHTS = 1 << 16

DoubleArray = npt.NDArray[np.float64]


class BlockDraws:
    """Draws from softmax(row / temperature) over the whole vocabulary, in id order. For one thread.

    First the block of 256 ids, then the id in it, so that no long sum is needed. The draw for a row does not depend on
    the rows beside it.
    """

    __slots__ = ("_chunk_rows", "_vocab_size", "_weights")

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        num_blocks = -(-vocab_size // _BLOCK)
        self._chunk_rows = max(1, _CHUNK_WEIGHTS // (num_blocks * _BLOCK))
        # Beyond the vocabulary the weights stay 0.
        self._weights = np.zeros((self._chunk_rows, num_blocks, _BLOCK), np.float32)

    def weigh(self, row: FloatArray, top: float, temperature: float) -> FloatArray:
        """exp((row - top) / temperature), (vocab_size,), valid until the next call."""
        weights: FloatArray = self._weights[0].reshape(-1)[: self._vocab_size]
        np.subtract(row, np.float32(top), out=weights)
        np.multiply(weights, np.float32(1.0 / temperature), out=weights)
        np.exp(weights, out=weights)
        return weights

    def draw(self, rows: FloatArray, tops: FloatArray, temperatures: FloatArray, uniforms: DoubleArray) -> list[int]:
        """One id for each of `rows` (n, vocab_size); `tops` are their largest logits, all finite."""
        drawn: list[int] = []
        for start in range(0, len(rows), self._chunk_rows):
            part = slice(start, start + self._chunk_rows)
            drawn += self._draw_chunk(rows[part], tops[part], temperatures[part], uniforms[part])
        return drawn

    def _draw_chunk(
        self, rows: FloatArray, tops: FloatArray, temperatures: FloatArray, uniforms: DoubleArray
    ) -> list[int]:
        each = np.arange(len(rows))
        blocks = self._weights[: len(rows)]
        weights = blocks.reshape(len(rows), -1)[:, : self._vocab_size]
        np.subtract(rows, tops[:, None], out=weights)
        np.multiply(weights, (1.0 / temperatures)[:, None], out=weights)
        np.exp(weights, out=weights)
        sums = np.cumsum(blocks.sum(axis=2), axis=1, dtype=np.float64)
        targets = uniforms * sums[:, -1]
        block = (sums <= targets[:, None]).sum(axis=1)
        before = np.where(block > 0, sums[each, block - 1], 0.0)
        inner = np.cumsum(blocks[each, block], axis=1, dtype=np.float64)
        # The two sums round differently: a target at the edge of a block must not fall on a token without weight.
        rest = np.minimum(targets - before, np.nextafter(inner[:, -1], 0.0))
        place = (inner <= rest[:, None]).sum(axis=1)
        ids: list[int] = (block * _BLOCK + place).tolist()
        return ids
