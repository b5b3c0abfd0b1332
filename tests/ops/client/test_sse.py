"""The event stream parser gets the same events however the bytes are cut."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from ops.client.sse import Event, events

STREAM = (
    ": ping\n"
    'id: 3\ndata: {"a": "ä€𝄞"}\n\n'
    "event: ignored\r\ndata:no space\r\ndata: second line\r\n\r\n"
    ": queued position=2\n\n"
    "retry: 5\n\n"
    "id: 7\ndata\ndata: x\n\n"
    "data: [DONE]\r\r"
    "data: never finished"
).encode()
EXPECTED = [
    Event('{"a": "ä€𝄞"}', "3"),
    Event("no space\nsecond line", "3"),
    Event("\nx", "7"),
    Event("[DONE]", "7"),
]


def test_events_in_one_piece() -> None:
    assert list(events([STREAM])) == EXPECTED


def test_events_byte_by_byte() -> None:
    assert list(events(bytes([byte]) for byte in STREAM)) == EXPECTED


@given(st.sets(st.integers(1, len(STREAM) - 1)))
@example({STREAM.index(b"\r\n") + 1})
def test_events_however_they_are_cut(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    assert list(events(STREAM[a:b] for a, b in pairwise(places))) == EXPECTED


@given(st.lists(st.binary(max_size=30)))
def test_any_bytes_are_survived(chunks: list[bytes]) -> None:
    list(events(chunks))
