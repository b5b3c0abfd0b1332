"""Single values of a GGUF file's header (ggml's docs/gguf.md), read without the library."""

import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

# Bytes by type of value.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9
# No key or text that is asked for comes near it; a broken length does.
_MAX_TEXT = 1 << 16


def read_header(path: Path, wanted: Collection[str]) -> dict[str, int | str]:
    """Those of the wanted keys that the file has, texts and numbers of 32 bits without a sign.

    Reads no further than the last of them. What comes after the place where a header is broken is missing. Raises
    OSError.
    """
    found: dict[str, int | str] = {}
    with path.open("rb") as file:
        try:
            _, _, _, num_entries = _read(file, "<4sIQQ")
            for _ in range(num_entries):
                _read_entry(file, wanted, found)
                if len(found) == len(wanted):
                    break
        except (struct.error, KeyError, ValueError, OverflowError, OSError, RecursionError):
            pass  # lengths of a broken header lead anywhere
    return found


def _read_entry(file: BinaryIO, wanted: Collection[str], found: dict[str, int | str]) -> None:
    key = _read_text(file)
    (kind,) = _read(file, "<I")
    if key in wanted and kind == _UINT32:
        found[key] = _read(file, "<I")[0]
    elif key in wanted and kind == _STRING:
        found[key] = _read_text(file)
    else:
        _skip(file, kind)


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        file.seek(_read(file, "<Q")[0], 1)
    elif kind == _ARRAY:
        element, length = _read(file, "<IQ")
        if element in _SIZES:
            file.seek(_SIZES[element] * length, 1)
        else:
            for _ in range(length):
                _skip(file, element)
    else:
        file.seek(_SIZES[kind], 1)


def _read_text(file: BinaryIO) -> str:
    (length,) = _read(file, "<Q")
    if length > _MAX_TEXT:
        raise struct.error("no such text")
    return _take(file, length).decode()


def _read(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _take(file, struct.calcsize(form)))


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise struct.error("the file ends")
    return data
