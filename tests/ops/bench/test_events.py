"""Events come out the same however the bytes are cut."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ops.bench.events import EventParser

PAYLOADS = st.binary(max_size=20).filter(lambda data: not set(b"\n\r") & set(data))
COMMENTS = st.sampled_from([b"", b": ping%s", b"id: 7%s", b": a%s: b%s"])
LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])


def feed(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    parser = EventParser()
    return [payload for low, high in pairwise(places) for payload in parser.feed(stream[low:high])]


@given(st.lists(st.tuples(COMMENTS, PAYLOADS, LINE_ENDS)), st.lists(st.integers(0, 10_000)))
def test_every_payload_comes_out_once_and_in_order(events: list[tuple[bytes, bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(comment.replace(b"%s", end) + b"data: " + data + end + end for comment, data, end in events)
    assert feed(stream, cuts) == [data for _, data, _ in events]


@given(st.binary(), st.lists(st.integers(0, 10_000)))
def test_cuts_make_no_difference_to_any_bytes(stream: bytes, cuts: list[int]) -> None:
    assert feed(stream, cuts) == feed(stream, [])


def test_data_lines_of_one_event_are_joined() -> None:
    assert EventParser().feed(b"data: a\ndata:b\n\n") == [b"a\nb"]


def test_an_event_without_data_is_nothing() -> None:
    assert EventParser().feed(b"id: 3\n\n: ping\n\n\n") == []


def test_an_unfinished_event_waits() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\n") == [b"a"]
