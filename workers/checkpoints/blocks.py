"""Weights in blocks, as GGUF files have them: numbers of at most 8 bits, a scale and a minimum for each 32 of a row."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLOCK = 32
_SCALE_BYTES = 12

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


class Blocks(NamedTuple):
    """A matrix: scale * number + minimum. `numbers` [out, in] of at most `bits` bits, the others [out, in / 32]."""

    numbers: Bytes
    scales: Halves
    minima: Halves
    bits: int

    def rows(self, which: slice | npt.NDArray[np.int64]) -> "Blocks":
        """Some outputs, in the order given."""
        return Blocks(self.numbers[which], self.scales[which], self.minima[which], self.bits)

    def dequantised(self) -> Floats:
        """[out, in]."""
        scales, minima = (np.repeat(part.astype(np.float32), BLOCK, axis=1) for part in (self.scales, self.minima))
        return scales * self.numbers + minima


# Numbers, scales, minima, bits.
_Read = tuple[Bytes, Floats, Floats, int]


def joined(parts: list[Blocks]) -> Blocks:
    """The outputs of all, one behind another."""
    return Blocks(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.minima for part in parts]),
        max(part.bits for part in parts),
    )


def blocks_of(kind: str, rows: Bytes) -> Blocks | None:
    """Of a matrix of that GGUF type, (out, bytes of a row); None of a type that has no such blocks, or where a scale is
    beyond 16 bits.

    Layouts: ggml-common.h of ggml. K-quants multiply two scales, whose product is rounded to 16 bits: by 1 in
    2,048, far below what 5 bits cost.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return None
    read, row_bytes = reader
    with np.errstate(over="ignore"):
        numbers, scales, minima, bits = read(rows.reshape(-1, row_bytes))
        out = len(rows)
        halves = tuple(part.astype(np.float16).reshape(out, -1) for part in (scales, minima))
    if not all(np.isfinite(part).all() for part in halves):
        return None
    return Blocks(np.ascontiguousarray(numbers.reshape(out, -1)), halves[0], halves[1], bits)


def _halves(blocks: Bytes, first: int) -> Floats:
    return np.ascontiguousarray(blocks[:, first : first + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low ones, then high ones."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _fifth_bits(packed: Bytes) -> Bytes:
    return np.unpackbits(packed, axis=-1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Bytes) -> _Read:
    scale = _halves(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, -8 * scale, 4


def _q4_1(blocks: Bytes) -> _Read:
    return _nibbles(blocks[:, 4:]), _halves(blocks, 0), _halves(blocks, 2), 4


def _q5_0(blocks: Bytes) -> _Read:
    scale = _halves(blocks, 0)
    return _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scale, -16 * scale, 5


def _q5_1(blocks: Bytes) -> _Read:
    return _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8]), _halves(blocks, 0), _halves(blocks, 2), 5


def _q8_0(blocks: Bytes) -> _Read:
    scale = _halves(blocks, 0)
    return blocks[:, 2:] ^ np.uint8(128), scale, -128 * scale, 8


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Of the eight blocks of each super-block: 6 bits of scale and 6 of minimum, spread over 12 bytes."""
    first, second, third = np.split(blocks[:, 4 : 4 + _SCALE_BYTES], 3, axis=1)
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 2) & 48)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | ((second >> 2) & 48)], axis=1)
    return _halves(blocks, 0) * scales, -_halves(blocks, 2) * minima


def _q4_k(blocks: Bytes) -> _Read:
    return _nibbles(blocks[:, 16:].reshape(-1, 4, BLOCK)), *_k_scales(blocks), 4


def _q5_k(blocks: Bytes) -> _Read:
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, BLOCK)).reshape(-1, 8, BLOCK)
    high = (blocks[:, 16:48].reshape(-1, 1, BLOCK) >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)) & np.uint8(1)
    return low | (high << np.uint8(4)), *_k_scales(blocks), 5


# And the bytes of a block, or super-block.
_READERS: dict[str, tuple[Callable[[Bytes], _Read], int]] = {
    "Q4_0": (_q4_0, 18),
    "Q4_1": (_q4_1, 20),
    "Q5_0": (_q5_0, 22),
    "Q5_1": (_q5_1, 24),
    "Q8_0": (_q8_0, 34),
    "Q4_K": (_q4_k, 144),
    "Q5_K": (_q5_k, 176),
}
