"""What is typed, from a pipe or a file."""

from typing import TextIO

from ops.chat.multiline import is_open, joined


class PlainLines:
    """A line, or several that belong together, for each turn."""

    def __init__(self, source: TextIO) -> None:
        self._source = source

    def read(self) -> str:
        """Raises EOFError at the end; a turn that is still open there is taken as it is."""
        text = self._line()
        while is_open(text):
            try:
                text = f"{text}\n{self._line()}"
            except EOFError:
                break
        return joined(text)

    def _line(self) -> str:
        line = self._source.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")
