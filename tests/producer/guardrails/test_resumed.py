"""Streams of filtered answers that begin at any token, and readers that take them in any pieces."""

from hypothesis import given, settings
from hypothesis import strategies as st

from producer.edge.output_filter import OutputFilter
from producer.edge.shapes import DONE
from producer.edge.stream import StreamWriter, WholeAnswer, collect_answers
from producer.guardrails.hold_back import HoldBack
from producer.guardrails.text_rules import TextRules
from schemas.requests import Identity
from tests.producer.guardrails.cutting import cut, places
from tests.producer.hand_fed import make_call, started_view
from tests.producer.test_stream import events_of, text_of
from tests.support.counts import full_or

RULES = TextRules(("bad word", "ß"), (r"\d{3}-\d{2}", "x+y"))
texts = st.lists(
    st.one_of(st.sampled_from(("bad word", "bad wo", "ss", "12-34", "123-45", "xxx", "xy")), st.text("bad xy1-é ")),
    max_size=8,
).map("".join)


def hold_back(identity: Identity, model: str) -> OutputFilter | None:
    return HoldBack(RULES, lambda rule: None)


@settings(max_examples=full_or(2000, reduced=150))
@given(texts, places, st.lists(st.integers(0, 5), max_size=12))
def test_what_a_stream_says_behind_each_of_its_events_a_resumed_one_says_too(
    text: str, at: list[int], steps: list[int]
) -> None:
    view = started_view()
    writer = StreamWriter(make_call(view), [hold_back])
    stream, tokens = b"", cut(text, at)
    for step in steps:  # the reader takes now and then, so the pieces it gets differ
        view.say(*tokens[:step])
        tokens = tokens[step:]
        stream += writer.take()
    view.say(*tokens)
    view.finish()
    while not writer.is_over:
        stream += writer.take()
    events = events_of(stream + DONE)
    whole = text_of(events)
    assert collect_answers(make_call(view), [hold_back])[0].text == whole
    ends = [event["choices"][0]["finish_reason"] for _, event in events if isinstance(event, dict)]
    assert ends[-1] == ("content_filter" if RULES.broken_by(text) else "stop")
    sent = ""
    for event_id, event in events:
        if event_id is None or not isinstance(event, dict):
            continue
        sent += event["choices"][0]["delta"].get("content", "")
        resumed = StreamWriter(make_call(view), [hold_back], start=[int(event_id) + 1])
        rest = b""
        while not resumed.is_over:
            rest += resumed.take()
        assert sent + text_of(events_of(rest + DONE)) == whole


def test_a_whole_answer_is_known_to_be_cut_before_it_is_over() -> None:
    first, second = started_view(), started_view()
    whole = WholeAnswer(make_call(first, second), [hold_back])
    first.say("a ", "bad")
    second.say("fine")
    assert not whole.is_cut()
    first.say(" word", "!")
    assert not whole.is_cut()
    second.finish()
    assert whole.is_cut()
    assert [(each.text, each.finish_reason) for each in whole.collect()] == [("a ", "content_filter"), ("fine", "stop")]


def test_a_whole_answer_without_a_filter_is_never_cut() -> None:
    view = started_view()
    whole = WholeAnswer(make_call(view), [lambda identity, model: None])
    view.say("bad word!")
    view.finish()
    assert not whole.is_cut()
    assert whole.collect()[0].text == "bad word!"
