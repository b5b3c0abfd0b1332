"""Bytes as tokens, and a few control tokens."""

import re

BOS, EOS, IM_START, IM_END, PROMPT_END = range(256, 261)
VOCAB_SIZE = 261
BOS_TEXT, EOS_TEXT = "<|bos|>", "<|eos|>"

_MARKERS = {
    BOS_TEXT: BOS,
    EOS_TEXT: EOS,
    "<|im_start|>": IM_START,
    "<|im_end|>": IM_END,
    "<|prompt_end|>": PROMPT_END,
}
_MARKER = re.compile("(" + "|".join(map(re.escape, _MARKERS)) + ")")

CHAT_TEMPLATE = """\
{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class ByteTokenizer:
    """A raw prompt is framed, as some tokenizers do: BOS before it, and a token that says where it ends after it."""

    vocab_size: int = VOCAB_SIZE
    bos_id: int | None = BOS
    end_ids: frozenset[int] = frozenset((EOS, IM_END))

    def __init__(self) -> None:
        self._bytes = [bytes((byte,)) for byte in range(256)] + [b""] * (VOCAB_SIZE - 256)

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        parts = _MARKER.split(text) if parse_special else [text]
        token_ids: list[int] = [BOS] if add_bos else []
        for place, part in enumerate(parts):
            if place % 2:
                token_ids.append(_MARKERS[part])
            else:
                token_ids += part.encode("utf-8", "replace")
        if add_bos:
            token_ids.append(PROMPT_END)
        return token_ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes[token_id]
