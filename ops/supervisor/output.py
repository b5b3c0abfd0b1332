"""The log output of `up`: what its processes say, each line with the name of who said it."""

import contextlib
from typing import TextIO

import orjson


class Output:
    """Writes to one stream. With JSON logs a line that is not JSON is wrapped, so that every line can be parsed."""

    def __init__(self, stream: TextIO, *, form: str) -> None:
        self._stream = stream
        self._is_json = form == "json"

    def write(self, name: str, line: str) -> None:
        if not self._is_json:
            text = f"{name} | {line}"
        elif line.startswith("{"):
            text = line
        else:
            text = orjson.dumps({"event": line, "process": name}).decode()
        with contextlib.suppress(OSError):  # a full disk must not end what goes on without its log
            self._stream.write(f"{text}\n")
            self._stream.flush()
