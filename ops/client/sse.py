"""Event streams as the HTML standard defines them, as far as an OpenAI-compatible server uses them."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Event(NamedTuple):
    """`id` is the last one the stream named, which may belong to an earlier event."""

    data: str
    id: str | None


def events(chunks: Iterable[bytes], on_comment: Callable[[str], None] | None = None) -> Iterator[Event]:
    """Events of a byte stream, however it is cut. Skips empty events, drops an unfinished one.

    Comments are no events; `on_comment` gets them where they come.
    """
    data: list[str] = []
    last_id: str | None = None
    for line in _lines(chunks):
        if not line:
            if data:
                yield Event("\n".join(data), last_id)
                data = []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "":
            if on_comment is not None:
                on_comment(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines ended by LF, CR or CR LF. UTF-8 is decoded by line, so that no character is cut."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        # A CR at the end may be the first half of CR LF: wait for what follows.
        held = rest.endswith(b"\r")
        text = rest[:-1] if held else rest
        *lines, rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if held:
            rest += b"\r"
        for line in lines:
            yield line.decode("utf-8", errors="replace")
