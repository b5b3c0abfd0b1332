"""The number format of a GGUF file's weights, as its own header has it."""

from pathlib import Path

from ops.serving.gguf_header import read_header

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


def weights_format(path: Path) -> str:
    """Such as `Q4_1`; `unknown` when the file does not say."""
    number = read_header(path, {_KEY}).get(_KEY)
    return _NAMES.get(number, "unknown") if isinstance(number, int) else "unknown"
