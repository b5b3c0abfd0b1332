"""The number format of a GGUF file's weights, from its own header (ggml's docs/gguf.md)."""

import struct
from pathlib import Path
from typing import BinaryIO

_KEY = "general.file_type"
# `llama_ftype` of llama.h, as its names are usually written. All but vectors are in that format or better.
# fmt: off
_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
    39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}
# fmt: on
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9


def weights_format(path: Path) -> str:
    """Such as `Q4_1`; `unknown` when the file does not say."""
    with path.open("rb") as file:
        try:
            number = _file_type(file)
        except (struct.error, KeyError):
            return "unknown"
    return _NAMES.get(number, "unknown")


def _file_type(file: BinaryIO) -> int:
    _, _, _, num_entries = _read(file, "<4sIQQ")
    for _ in range(num_entries):
        key = file.read(_read(file, "<Q")[0])
        (kind,) = _read(file, "<I")
        if key == _KEY.encode() and kind == _UINT32:
            return int(_read(file, "<I")[0])
        _skip(file, kind)
    raise KeyError(_KEY)


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


def _read(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
