import contextlib
import json
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import events as ev
from schemas.codec import CodecError, decode_event, decode_request, encode_event, encode_request
from schemas.fold import Fold
from schemas.requests import (
    ChatMessage,
    ChatPrompt,
    Endpoint,
    GenerateRequest,
    Grants,
    Identity,
    PriorityClass,
    SamplingParams,
    TextPrompt,
    TokenPrompt,
)

_text = st.text(max_size=20)
_ints = st.integers(-(2**31), 2**31)
_tokens = st.lists(st.tuples(st.integers(0, 2**20), _text), max_size=5).map(
    lambda pairs: ([token for token, _ in pairs], [piece for _, piece in pairs])
)
_usage = st.builds(ev.Usage, _ints, _ints, _ints)
_events: st.SearchStrategy[ev.Event] = st.one_of(
    st.builds(
        ev.Accepted,
        _text,
        _text,
        _text,
        _text,
        _ints,
        st.dictionaries(_text, st.none() | st.booleans() | _ints | _text, max_size=3),
        _text,
        st.none() | _text,
    ),
    st.builds(ev.Started, _text, _text, _text, _text),
    st.builds(ev.Released, _text),
    st.builds(ev.Cancelled, _text),
    st.builds(ev.Progress, _text, _ints, _ints),
    st.builds(lambda run, index, tokens: ev.Delta(run, index, *tokens), _text, st.integers(0, 2**31), _tokens),
    st.builds(
        lambda run, reason, usage, tokens: ev.Finished(run, reason, usage, *tokens), _text, _text, _usage, _tokens
    ),
    st.builds(ev.Failed, st.none() | _text, _text, _text, st.booleans(), st.none() | _text),
    st.builds(ev.Advanced, _text, _ints),
    st.builds(
        lambda run, length, tokens, fingerprint: ev.Held(run, length, *tokens, fingerprint),
        st.none() | _text,
        _ints,
        _tokens,
        st.none() | _text,
    ),
)
_prompts = st.one_of(
    st.builds(TextPrompt, _text),
    st.builds(TokenPrompt, st.lists(st.integers(0, 2**20), max_size=5).map(tuple)),
    st.builds(
        ChatPrompt,
        st.lists(st.builds(ChatMessage, _text, _text, st.none() | _text), max_size=3).map(tuple),
        st.booleans(),
    ),
)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_requests = st.builds(
    GenerateRequest,
    request_id=_text,
    edge=_text,
    model=_text,
    endpoint=st.sampled_from(Endpoint),
    created=_ints,
    deadline_ms=st.integers(0, 2**50),
    identity=st.builds(
        Identity,
        owner=_text,
        tenant=_text,
        scopes=st.lists(_text, max_size=2).map(tuple),
        grants=st.builds(Grants, st.lists(_text, max_size=2).map(tuple), st.sampled_from(PriorityClass)),
    ),
    prompt=_prompts,
    sampling=st.builds(
        SamplingParams,
        seed=st.integers(0, 2**63),
        max_tokens=st.none() | st.integers(1, 2**31),
        temperature=_floats,
        stop=st.lists(_text, max_size=3).map(tuple),
        logit_bias=st.lists(st.tuples(st.integers(0, 2**20), _floats), max_size=3).map(tuple),
        ignore_eos=st.booleans(),
    ),
    priority=st.sampled_from(PriorityClass),
    submission=st.integers(0, 9),
    labels=st.dictionaries(_text, _text, max_size=2),
    traceparent=st.none() | _text,
    journaled=st.booleans(),
)
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | _text | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(_text | _ints, inner, max_size=3),
    max_leaves=15,
)


@given(_events)
def test_events_come_back_as_they_were(event: ev.Event) -> None:
    assert decode_event(encode_event(event)) == event


@given(_requests)
def test_requests_come_back_as_they_were(request: GenerateRequest) -> None:
    assert decode_request(encode_request(request)) == request


@given(st.binary(max_size=64))
def test_random_bytes_are_an_event_or_a_codec_error(payload: bytes) -> None:
    for candidate in (payload, b"\x01" + payload):
        for decode in (decode_event, decode_request):
            with contextlib.suppress(CodecError):
                decode(candidate)


@given(_events, st.data())
def test_an_event_with_one_field_of_another_kind_is_an_event_or_a_codec_error(
    event: ev.Event, data: st.DataObject
) -> None:
    fields = msgpack.unpackb(encode_event(event)[1:])
    fields[data.draw(st.integers(0, len(fields) - 1))] = data.draw(_values)
    try:
        decoded = decode_event(b"\x01" + msgpack.packb(fields))
    except CodecError:
        return
    state = Fold()
    state.feed(ev.Started("A", "w", "ack", "f"), 1)
    state.feed(decoded, 2)  # what decodes can be folded, and its text read
    assert isinstance(state.text(), str)


@given(st.lists(_values, max_size=9), st.integers(-1, 9))
def test_any_list_of_any_values_is_an_event_or_a_codec_error(fields: list[Any], kind: int) -> None:
    with contextlib.suppress(CodecError):
        decode_event(b"\x01" + msgpack.packb([kind, *fields]))


@given(_values)
def test_any_value_is_a_request_or_a_codec_error(value: Any) -> None:
    with pytest.raises(CodecError):
        decode_request(b"\x01" + msgpack.packb(value))


@given(_events, st.data())
def test_an_event_cut_short_is_a_codec_error(event: ev.Event, data: st.DataObject) -> None:
    payload = encode_event(event)
    with pytest.raises(CodecError):
        decode_event(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(st.text(max_size=40))
def test_json_that_is_no_request_is_a_codec_error(text: str) -> None:
    with pytest.raises(CodecError):
        decode_request(b"{" + text.encode(errors="surrogatepass"))


@pytest.mark.parametrize("payload", [b'{"a":' * 100_000, b"\x01" + b"\x91" * 100_000, b'{"created":' + b"9" * 9999])
def test_bodies_made_to_break_a_parser_are_codec_errors(payload: bytes) -> None:
    with pytest.raises(CodecError):
        decode_request(payload)
    with pytest.raises(CodecError):
        decode_event(payload)


def test_a_request_may_be_published_as_json_by_hand() -> None:
    body = {
        "request_id": "r1",
        "edge": "e1",
        "model": "m",
        "endpoint": "completions",
        "created": 1,
        "deadline_ms": 2,
        "identity": {"owner": "me"},
        "prompt": {"kind": "text", "text": "hello"},
        "sampling": {"seed": 1},
    }
    request = decode_request(json.dumps(body).encode())
    assert request.prompt == TextPrompt("hello")
    assert request.priority is PriorityClass.NORMAL
    assert request.journaled
    with pytest.raises(CodecError, match="sampling"):
        decode_request(json.dumps({**body, "sampling": {}}).encode())


def test_a_delta_whose_lists_do_not_match_is_refused() -> None:
    for event in (
        ev.Delta("A", 0, [1, 2], ["a"]),
        ev.Finished("A", "stop", ev.Usage(1, 1), [1], []),
        ev.Held("A", 1, [1], [], "f"),
    ):
        with pytest.raises(CodecError, match="tokens and"):
            decode_event(encode_event(event))


def test_the_wire_form_is_pinned() -> None:
    """Journals outlive a process: another version must read them."""
    assert encode_event(ev.Delta("A", 3, [7], ["x"])) == b"\x01\x95\x05\xa1A\x03\x91\x07\x91\xa1x"
    assert encode_event(ev.Cancelled("left"))[:3] == b"\x01\x92\x03"
    assert encode_event(ev.Advanced("A", 5)) == b"\x01\x93\x08\xa1A\x05"
    # A field added at the end with a default is not in older records.
    assert decode_event(b"\x01" + msgpack.packb([7, None, "internal", "text", False])) == ev.Failed(
        None, "internal", "text", False
    )
