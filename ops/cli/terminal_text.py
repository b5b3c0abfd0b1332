"""Text of others on a terminal: without what a terminal would obey, such as escape sequences in an answer."""

import re
import sys

# C0 without tab and line feed, DEL, C1.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def safe(text: str) -> str:
    """Control characters become �."""
    return _CONTROLS.sub("�", text)


def shown(text: str) -> str:
    """`safe` when stdout is a terminal; as it is for files and pipes."""
    return safe(text) if sys.stdout.isatty() else text
