"""What was typed in several lines: a backslash at the end of a line goes on, and so does \"\"\" up to its end. Pure."""

_QUOTES = '"""'


def is_open(text: str) -> bool:
    """Whether another line belongs to it."""
    stripped = text.strip()
    if stripped.startswith(_QUOTES):
        return len(stripped) < 2 * len(_QUOTES) or not stripped.endswith(_QUOTES)
    return text.endswith("\\")


def joined(text: str) -> str:
    """What is meant, without the marks."""
    stripped = text.strip()
    if stripped.startswith(_QUOTES):
        return stripped.removeprefix(_QUOTES).removesuffix(_QUOTES).strip("\n")
    return text.replace("\\\n", "\n").removesuffix("\\")
