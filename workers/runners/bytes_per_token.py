"""How much text a model's tokens hold."""

from workers.runners.base import Tokenizer

# Prose, code and digits, about as they come in requests.
_SAMPLE = """Explain in two or three sentences why the sky is blue, as if to a child of ten. Then answer: how many of
the 1,024 boxes are left after 37 were sold on 2024-03-18 and 12.5 % of the rest were given away?

def moving_average(values: list[float], width: int) -> list[float]:
    return [sum(values[i : i + width]) / width for i in range(len(values) - width + 1)]
"""


def bytes_per_token(tokenizer: Tokenizer) -> float:
    """Measured on a short sample."""
    token_ids = tokenizer.encode(_SAMPLE, add_bos=False, parse_special=False)
    return len(_SAMPLE.encode()) / max(1, len(token_ids))
