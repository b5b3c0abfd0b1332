"""Logits out of nothing but a handle's contents."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from workers.runners.base import FloatArray
from workers.runners.echo.contents import Contents, mix
from workers.runners.echo.tokenizer import BOS, EOS, IM_END, IM_START, PROMPT_END, VOCAB_SIZE

_PEAK = 40.0
_END_PROBABILITY = 1 / 100
_NOISE = 8.0

_Words = npt.NDArray[np.uint64]


class Row(NamedTuple):
    """The logits after the token at `position` are wanted."""

    contents: Contents
    position: int


class LogitSource(Protocol):
    def compute(self, rows: list[Row]) -> FloatArray:
        """float32 (len(rows), VOCAB_SIZE)."""
        ...


class RepeatLogits:
    """Says the last user message again, or the raw prompt, then ends.

    A prompt of token ids does not show where it ends: there the answer is taken to have begun with the longest ending
    of the tokens that is their beginning too, which errs for a prompt that ends as it begins.
    """

    def compute(self, rows: list[Row]) -> FloatArray:
        logits = np.zeros((len(rows), VOCAB_SIZE), np.float32)
        for number, row in enumerate(rows):
            logits[number, _next_token(row.contents.text(row.position))] = _PEAK
        return logits


_USER = chr(IM_START) + "user\n"
_ASSISTANT = chr(IM_START) + "assistant\n"


def _next_token(text: str) -> int:
    header = text.rfind(_ASSISTANT)
    marker = text.find(chr(PROMPT_END))
    if header >= 0:
        answer, end = text[header + len(_ASSISTANT) :].replace(chr(PROMPT_END), ""), IM_END
        start = text.rfind(_USER, 0, header)
        stop = text.find(chr(IM_END), start, header)
        message = text[start + len(_USER) : stop] if 0 <= start < stop else ""
        said = len(answer)
    elif marker >= 0:
        message, said, end = text[:marker].removeprefix(chr(BOS)), len(text) - marker - 1, EOS
    else:
        text = text.removeprefix(chr(BOS)).rstrip(chr(EOS))
        said = next((len(text) - i for i in range((len(text) + 1) // 2, len(text)) if text.startswith(text[i:])), 0)
        message, end = text[: len(text) - said], EOS
    return ord(message[said]) if said < len(message) else end


class RandomLogits:
    """Pseudo-random text: mostly printable ASCII, regularly characters of two to four tokens, now and then a stray
    byte.

    A row depends on the seed and on every token before it with its place. It ends with probability 1/100 at each
    character, after about 120 tokens, greedily as well as at temperature 1.
    """

    def __init__(self, seed: int) -> None:
        self._seed = mix(seed & ((1 << 64) - 1))
        self._profiles = _profiles()
        self._ids = np.arange(VOCAB_SIZE, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)

    def compute(self, rows: list[Row]) -> FloatArray:
        digests = [mix(row.contents.digest(row.position) ^ self._seed) for row in rows]
        states = [_utf8_state(row.contents.last(row.position, 3)) for row in rows]
        noise = _mix_all(np.array(digests, np.uint64).reshape(-1, 1) + self._ids)
        logits = self._profiles[states] + (noise >> np.uint64(40)).astype(np.float32) * np.float32(_NOISE * 2.0**-24)
        for number, (digest, state) in enumerate(zip(digests, states, strict=True)):
            if state == 0 and (digest >> 11) * 2.0**-53 < _END_PROBABILITY:
                logits[number, EOS if digest & 1 else IM_END] = _PEAK
        return logits


def _mix_all(words: _Words) -> _Words:
    """`mix` without its first addition, for an array; wraps as it should."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


# States: 0 between characters; 1, 2, 3 continuation bytes are missing; 4 after 0xF0, three missing, the first above
# 0x8F.
_AFTER_F0 = 4


def _profiles() -> FloatArray:
    """What is likely in each state, (5, VOCAB_SIZE)."""
    profiles = np.full((5, VOCAB_SIZE), -12.0, np.float32)
    profiles[0, :256] = -6.0
    profiles[0, 32:127] = 0.0
    profiles[0, ord(" ")] = 2.0
    profiles[0, ord("\n")] = -1.0
    profiles[0, [0xC3, 0xCE, 0xD0, 0xE2, 0xE3, 0xE4, 0xF0]] = 0.0
    profiles[1:, 0x80:0xC0] = 0.0
    profiles[_AFTER_F0, 0x80:0x90] = -12.0
    profiles[:, 256:] = -_PEAK
    return profiles


def _utf8_state(last: list[int]) -> int:
    """The state after these tokens; only the last three matter."""
    for back, token in enumerate(reversed(last)):
        if 0x80 <= token < 0xC0:
            continue
        length = 2 if 0xC2 <= token < 0xE0 else 3 if 0xE0 <= token < 0xF0 else 4 if 0xF0 <= token < 0xF5 else 1
        missing = max(0, length - 1 - back)
        return _AFTER_F0 if missing == 3 else missing
    return 0
