"""The flag that ends a running decode.

The library polls a C callback after every node of its graph, about a thousand times in a step. A Python callback would
need the interpreter lock each time and so wait for whatever the event loop is busy with. `strlen` needs nothing: on a
buffer that starts with NUL it says 0, on one that starts with another byte and then NUL it says 1, and that is the
callback's bool.
"""

import ctypes
import sys


class AbortFlag:
    """Set from any thread. Must outlive the context that polls it."""

    def __init__(self) -> None:
        # Longer than it need be: strlen reads whole vectors.
        self._buffer = ctypes.create_string_buffer(64)
        self._strlen = (ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)).strlen

    def set(self) -> None:
        self._buffer[0] = b"\x01"

    def clear(self) -> None:
        self._buffer[0] = b"\x00"

    @property
    def is_set(self) -> bool:
        return bool(self._buffer[0] != b"\x00")

    @property
    def function(self) -> ctypes.c_void_p:
        return ctypes.cast(self._strlen, ctypes.c_void_p)

    @property
    def address(self) -> int:
        return ctypes.addressof(self._buffer)
