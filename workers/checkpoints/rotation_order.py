"""The order of q's and k's rows: GGUF's Llama rotates neighbours, transformers rotates halves of a head."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)


def neighbours_to_halves(rows: npt.NDArray[T], num_heads: int) -> npt.NDArray[T]:
    """Rows (of whatever they hold) of a GGUF file's q or k, as a folder with safetensors has them."""
    by_pair = rows.reshape(num_heads, rows.shape[0] // num_heads // 2, 2, *rows.shape[1:])
    return by_pair.swapaxes(1, 2).reshape(rows.shape)
