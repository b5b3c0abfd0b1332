"""bfloat16 as numpy has it: the bits, in uint16."""

import numpy as np
import numpy.typing as npt


def to_bf16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounded to nearest, ties to even. NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    # Rounding up could carry a NaN into infinity or zero.
    nan = np.isnan(values)
    result = (rounded >> 16).astype(np.uint16)
    if nan.any():
        result[nan] = ((bits[nan] >> 16) | 0x40).astype(np.uint16)
    return result


def from_bf16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
