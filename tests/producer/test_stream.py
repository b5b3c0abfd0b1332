"""Journals into stream bytes: chunks, ids, ends, from any index, at any pace."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.edge.output_filter import FilterFactory, OutputFilter, Released
from producer.edge.place import PlaceUnknown
from producer.edge.stream import StreamWriter, collect_answers
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled, FinishReason, Progress, Started
from schemas.events import Released as HandedBack
from schemas.requests import Endpoint, Identity
from tests.producer.hand_fed import HandFedView, make_call, started_view

PIECES = st.lists(st.text(max_size=4), max_size=30)


def events_of(stream: bytes) -> list[tuple[str | None, Any]]:
    """(id, data) of every event; data is parsed unless it is [DONE]."""
    events = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(fields) <= {"id", "data"}
        data = fields["data"]
        events.append((fields.get("id"), data if data == "[DONE]" else json.loads(data)))
    return events


def text_of(events: list[tuple[str | None, Any]], choice: int = 0) -> str:
    text = ""
    for _, data in events:
        for each in data["choices"] if isinstance(data, dict) else ():
            if each["index"] == choice:
                text += each["delta"].get("content", "") if "delta" in each else each["text"]
    return text


def test_a_chat_stream_has_role_texts_finish_usage_and_done() -> None:
    view = started_view()
    view.say("Hel", "lo")
    view.finish()
    call = make_call(view, include_usage=True)
    writer = StreamWriter(call)
    events = events_of(writer.take() + writer.end())
    assert [event_id for event_id, _ in events] == [None, "0", "1", "1", None, None]
    role, first, second, finish, usage, done = (data for _, data in events)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [each["choices"][0]["delta"]["content"] for each in (first, second)] == ["Hel", "lo"]
    assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["total_tokens"]) == (3, 5)
    assert done == "[DONE]"
    assert all(data["usage"] is None for data in (role, first, second, finish))
    assert {data["id"] for data in (role, first, finish, usage)} == {"chatcmpl-abc"}
    assert {data["system_fingerprint"] for data in (role, usage)} == {"fp_test"}
    assert {data["object"] for data in (role, usage)} == {"chat.completion.chunk"}
    assert writer.is_over


def test_a_plain_stream_has_no_role_and_no_usage_unless_asked() -> None:
    view = started_view()
    view.say("a")
    view.finish("length")
    writer = StreamWriter(make_call(view, endpoint=Endpoint.COMPLETIONS))
    text, finish, done = (data for _, data in events_of(writer.take() + writer.end()))
    assert text["choices"] == [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}]
    assert finish["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]
    assert "usage" not in text
    assert (text["object"], text["id"], done) == ("text_completion", "cmpl-abc", "[DONE]")


@given(PIECES, st.data())
def test_any_pace_gives_the_same_text_and_rising_ids(pieces: list[str], data: st.DataObject) -> None:
    view = started_view()
    writer = StreamWriter(make_call(view))
    stream, left = b"", list(pieces)
    while left:
        count = data.draw(st.integers(1, len(left)))
        view.say(*left[:count])
        left = left[count:]
        stream += writer.take()
    view.finish()
    events = events_of(stream + writer.take() + writer.end())
    assert text_of(events) == "".join(pieces)
    ids = [int(event_id) for event_id, _ in events if event_id is not None]
    assert ids == sorted(ids)
    assert not pieces or ids[-1] == len(pieces) - 1


@given(PIECES, st.data())
def test_an_id_says_exactly_which_text_was_sent_so_that_any_start_continues_it(
    pieces: list[str], data: st.DataObject
) -> None:
    view = started_view()
    view.say(*pieces)
    view.finish()
    start = data.draw(st.integers(0, len(pieces)))
    writer = StreamWriter(make_call(view), start=[start])
    assert text_of(events_of(writer.take() + writer.end())) == "".join(pieces[start:])
    sent = ""
    for event_id, chunk in events_of(StreamWriter(make_call(view)).take()):
        sent += text_of([(event_id, chunk)])
        if event_id is not None:
            assert sent == "".join(pieces[: int(event_id) + 1])


def test_a_reader_that_is_behind_gets_one_larger_chunk() -> None:
    view = started_view()
    view.say(*("x" for _ in range(100)))
    writer = StreamWriter(make_call(view))
    events = events_of(writer.take())
    assert [event_id for event_id, _ in events] == [None, "99"]
    assert writer.num_tokens == 100


def test_held_back_tokens_send_nothing_until_their_text_comes() -> None:
    view = started_view()
    writer = StreamWriter(make_call(view))
    view.say("", "")
    assert writer.take() == b""
    view.say("é")
    assert [event_id for event_id, _ in events_of(writer.take())] == [None, "2"]


def test_an_empty_answer_still_has_role_and_finish() -> None:
    view = started_view()
    view.finish()
    writer = StreamWriter(make_call(view))
    role, finish, done = events_of(writer.take() + writer.end())
    assert role[1]["choices"][0]["delta"]["role"] == "assistant"
    assert finish[0] is None and finish[1]["choices"][0]["finish_reason"] == "stop"
    assert done[1] == "[DONE]"


def test_text_comes_before_the_failure_that_ends_it() -> None:
    view = started_view()
    view.say("a")
    view.fail("poisoned")
    writer = StreamWriter(make_call(view))
    assert text_of(events_of(writer.take())) == "a"
    with pytest.raises(ServingError) as failed:
        writer.take()
    assert failed.value.code is ErrorCode.POISONED


def test_a_cancelled_journal_is_a_failure_too() -> None:
    view = started_view()
    view.feed(Cancelled("asked"))
    with pytest.raises(ServingError) as failed:
        StreamWriter(make_call(view)).take()
    assert failed.value.code is ErrorCode.CANCELLED
    with pytest.raises(ServingError):
        collect_answers(make_call(view))


def test_several_choices_keep_their_index_and_share_a_place() -> None:
    first, second = started_view(), started_view()
    call = make_call(first, second, endpoint=Endpoint.COMPLETIONS, include_usage=True)
    writer = StreamWriter(call)
    second.say("b")
    events = events_of(writer.take())
    first.say("a")
    first.finish()
    events += events_of(writer.take())
    assert not writer.is_over
    second.say("B")
    second.finish()
    events += events_of(writer.take() + writer.end())
    assert (text_of(events, 0), text_of(events, 1)) == ("a", "bB")
    assert [event_id for event_id, _ in events[:-2]] == ["-1,0", "0,0", "0,0", "0,1", "0,1"]
    assert events[-2][1]["usage"]["total_tokens"] == 3 + 1 + 3 + 2
    answers = collect_answers(call)
    assert [answer.text for answer in answers] == ["a", "bB"]


def test_a_failed_part_fails_the_whole_answer() -> None:
    good, bad = started_view(), started_view()
    good.say("a")
    good.finish()
    bad.say("b")
    bad.fail()
    with pytest.raises(ServingError):
        collect_answers(make_call(good, bad))


class Upper:
    """Holds the last character back."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, index: int, text: str) -> Released:
        text = self._held + text
        ready, self._held = text[:-1], text[-1:]
        return Released(ready.upper())

    def flush(self, index: int) -> Released:
        return Released(self._held.upper())


class StopAt:
    """Ends the answer at an exclamation mark."""

    def feed(self, index: int, text: str) -> Released:
        before, mark, _ = text.partition("!")
        return Released(before, FinishReason.CONTENT_FILTER if mark else None)

    def flush(self, index: int) -> Released:
        return Released("")


def upper(identity: Identity, model: str) -> OutputFilter:
    return Upper()


def stop_at(identity: Identity, model: str) -> OutputFilter:
    return StopAt()


def test_filters_see_streamed_and_whole_answers_alike() -> None:
    view = started_view()
    writer = StreamWriter(make_call(view), [upper])
    stream = b""
    for piece in ("he", "ll", "o"):
        view.say(piece)
        stream += writer.take()
    view.finish()
    stream += writer.take()
    assert text_of(events_of(stream)) == "HELLO"
    assert collect_answers(make_call(view), [upper])[0].text == "HELLO"


def test_a_filter_may_end_an_answer_early() -> None:
    view = started_view()
    view.progress = Progress("r", 7, 7)
    call = make_call(view, include_usage=True)
    writer = StreamWriter(call, [stop_at, upper])
    view.say("ab")
    stream = writer.take()
    view.say("c!", "never")
    stream += writer.take()
    assert writer.is_over
    assert [part.request_id for part in writer.ended_early()] == ["abc-0"]
    events = events_of(stream + writer.end())
    assert events[-3][1]["choices"][0]["finish_reason"] == "content_filter"
    assert "never" not in text_of(events)
    assert events[-2][1]["usage"]["prompt_tokens"] == 7


def test_a_filtered_stream_can_start_anywhere() -> None:
    view = started_view()
    view.say("ab", "cd", "ef")
    view.finish()
    for start, rest in ((0, "ABCDEF"), (1, "BCDEF"), (2, "DEF"), (3, "F"), (4, "")):
        writer = StreamWriter(make_call(view), [upper], start=[start])
        events = events_of(writer.take())
        assert text_of(events) == rest
        assert events[-1][1]["choices"][0]["finish_reason"] == "stop"
        assert events[-1][0] == "3"


@given(st.lists(st.text("ab!", max_size=3), max_size=30), st.data())
def test_a_filtered_stream_is_the_same_at_any_pace_and_from_each_of_its_ids(
    pieces: list[str], data: st.DataObject
) -> None:
    view = started_view()
    live = StreamWriter(make_call(view, include_usage=True), [stop_at, upper])
    stream, left = b"", list(pieces)
    while left:
        count = data.draw(st.integers(1, len(left)))
        view.say(*left[:count])
        left = left[count:]
        stream += live.take()
    view.finish()
    stream += live.take() + live.end()
    events = events_of(stream)
    whole = text_of(events)
    sent = ""
    for number, (event_id, chunk) in enumerate(events[:-2]):
        sent += text_of([(event_id, chunk)])
        if event_id is not None and events[number + 1][0] != event_id:
            again = StreamWriter(make_call(view, include_usage=True), [stop_at, upper], start=[int(event_id) + 1])
            rest = events_of(again.take() + again.end())
            assert sent + text_of(rest) == whole
            assert rest[-3:] == events[-3:]


def test_a_filter_sees_each_token_by_itself_however_they_arrive() -> None:
    seen: list[tuple[int, str]] = []

    class Spy(StopAt):
        def feed(self, index: int, text: str) -> Released:
            seen.append((index, text))
            return super().feed(index, text)

    view = started_view()
    view.say("a", "", "b!", "never")
    view.finish()
    call = make_call(view, include_usage=True)
    writer = StreamWriter(call, [lambda identity, model: Spy()])
    events = events_of(writer.take() + writer.end())
    assert seen == [(0, "a"), (1, ""), (2, "b!")]
    assert events[-2][1]["usage"]["completion_tokens"] == 3


def test_a_start_ahead_of_the_answer_waits_for_it() -> None:
    view = started_view()
    writer = StreamWriter(make_call(view), start=[2])
    view.say("a", "b")
    assert writer.take() == b""
    assert writer.last_event_id == "1"
    view.say("c")
    assert text_of(events_of(writer.take())) == "c"
    assert writer.last_event_id == "2"


@pytest.mark.parametrize("filters", [[], [upper]])
def test_a_start_behind_the_end_is_a_place_that_never_was(filters: list[FilterFactory]) -> None:
    view = started_view()
    writer = StreamWriter(make_call(view), filters, start=[9])
    view.say("a", "b")
    assert writer.take() == b""
    view.finish()
    with pytest.raises(PlaceUnknown) as refused:
        writer.take()
    assert (refused.value.status, refused.value.param) == (400, "Last-Event-ID")


def test_several_choices_can_start_anywhere() -> None:
    first, second = started_view(), started_view()
    call = make_call(first, second, endpoint=Endpoint.COMPLETIONS)
    first.say("a", "b")
    second.say("c")
    writer = StreamWriter(call, start=[2, 0])
    events = events_of(writer.take())
    assert (text_of(events, 0), text_of(events, 1), writer.last_event_id) == ("", "c", "1,0")
    first.finish()
    second.finish()
    assert [event_id for event_id, _ in events_of(writer.take())] == ["1,0", "1,0"]
    assert StreamWriter(call, start=[2, 0]).last_event_id == "1,-1"


def test_the_fingerprint_is_that_of_the_model_that_wrote_the_text() -> None:
    view = started_view()
    view.say("a")
    # Another model's worker takes it, sees that it cannot go on, and hands it back.
    view.feed(HandedBack("r"), Started("s", "w2", "ack", "fp_other"), HandedBack("s"))
    (event,) = events_of(StreamWriter(make_call(view), start=[0]).take())
    assert event[1]["system_fingerprint"] == "fp_test"


def test_nothing_is_written_before_there_is_news() -> None:
    assert StreamWriter(make_call(HandFedView())).take() == b""
