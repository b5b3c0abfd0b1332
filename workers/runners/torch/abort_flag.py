"""The flag that ends a running step."""

import numpy as np


class AbortFlag:
    """Set from any thread, polled between layers, by the kernel too."""

    def __init__(self) -> None:
        self._value = np.zeros(1, np.int32)

    def set(self) -> None:
        self._value[0] = 1

    def clear(self) -> None:
        self._value[0] = 0

    @property
    def is_set(self) -> bool:
        return bool(self._value[0])

    @property
    def address(self) -> int:
        return int(self._value.ctypes.data)
