import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import subjects
from schemas.requests import PriorityClass

_ACK = "$JS.ACK.INFERFLUX_REQUESTS.echo-high-0.1.17.3.1795461330402576359.2"


@given(st.text(min_size=1))
def test_any_name_becomes_one_token_and_comes_back(text: str) -> None:
    try:
        token = subjects.encode_token(text)
    except UnicodeEncodeError:  # a lone surrogate is no text
        return
    assert not set(token) & set(". *>\t\r\n")
    assert subjects.decode_token(token) == text


@pytest.mark.parametrize("token", ["", "a.b", "a b", "=4", "=zz", "=61", "=2f", "=FF", "a*"])
def test_what_encoding_never_writes_is_not_decoded(token: str) -> None:
    with pytest.raises(ValueError):
        subjects.decode_token(token)


def test_an_empty_name_has_no_token() -> None:
    with pytest.raises(ValueError):
        subjects.encode_token("")


@given(st.text(min_size=1, alphabet=st.characters(codec="utf-8")), st.sampled_from(PriorityClass), st.integers(0, 99))
def test_request_subjects_and_consumers_come_apart_as_they_were_built(
    model: str, priority: PriorityClass, lane: int
) -> None:
    place = (model, priority, str(lane))
    assert subjects.parse_request(subjects.request_subject(*place)) == place
    assert subjects.parse_consumer(subjects.consumer_name(*place)) == place


def test_a_model_named_like_a_class_keeps_its_own_consumers() -> None:
    names = [subjects.consumer_name(model, priority) for model in ("m", "m-high") for priority in PriorityClass]
    assert len(set(names)) == len(names)
    assert subjects.parse_consumer("m-high-low-0").model == "m-high"


def test_journal_subjects_come_apart() -> None:
    names = subjects.journal("e-1", "r_1")
    assert names == (
        "inferflux.tok.e-1.r_1.head",
        "inferflux.tok.e-1.r_1.run",
        "inferflux.tok.e-1.r_1.ev",
        "inferflux.tok.e-1.r_1.*",
    )
    assert subjects.parse_journal(names.ev) == ("e-1", "r_1", "ev")


@pytest.mark.parametrize("request_id", ["", "a.b", "*", ">", "a b", "a\r\nPUB x", "ü", "x" * 129])
def test_an_id_that_is_no_subject_token_is_refused(request_id: str) -> None:
    assert not subjects.is_valid_id(request_id)
    with pytest.raises(ValueError):
        subjects.journal("e1", request_id)


@pytest.mark.parametrize("subject", ["inferflux.tok.e1.r1", "inferflux.tok.e1.r1.x", "inferflux.req.m.high.0", "x"])
def test_other_subjects_are_no_journal(subject: str) -> None:
    with pytest.raises(ValueError):
        subjects.parse_journal(subject)


def test_an_ack_subject_tells_the_delivery() -> None:
    told = ("INFERFLUX_REQUESTS", 1, 17, 3, int(_ACK.split(".")[-2]))
    assert subjects.parse_delivery(_ACK) == told
    with_domain = _ACK.replace("$JS.ACK.", "$JS.ACK.hub.hash.") + ".random"
    assert subjects.parse_delivery(with_domain) == told


def test_only_ack_subjects_of_the_request_stream_may_be_handed_back() -> None:
    assert subjects.is_request_ack(_ACK)
    assert subjects.is_request_ack(_ACK.replace("$JS.ACK.", "$JS.ACK.hub.hash."))
    for other in (
        _ACK.replace("REQUESTS", "TOKENS"),
        "inferflux.ctl.worker.w1",
        "$JS.ACK.INFERFLUX_REQUESTS.>",
        _ACK.replace("17", "*"),
        _ACK + " x",
        _ACK + "\r\n",
        "",
    ):
        assert not subjects.is_request_ack(other), other


def test_live_subjects_are_of_valid_ids() -> None:
    assert subjects.live_subject("e-1", "r_1") == "inferflux.live.e-1.r_1"
    assert subjects.live_subject("e-1", "*") == "inferflux.live.e-1.*"
    for place in (("e.1", "r1"), ("*", "r1"), ("e1", ">"), ("e1", "")):
        with pytest.raises(ValueError):
            subjects.live_subject(*place)


def test_only_what_asks_for_an_answer_is_answered() -> None:
    assert subjects.is_heard(f"{subjects.heard_inbox()}.17")
    for other in (
        subjects.heard_inbox(),
        f"{subjects.heard_inbox()}.*",
        f"{subjects.heard_inbox()}.1.2",
        "inferflux.req.echo.high.0",
        "_INBOX_worker.abc.1",
        _ACK,
        "",
    ):
        assert not subjects.is_heard(other), other


def test_bucket_keys_are_encoded() -> None:
    assert subjects.bucket_subject("models", "org/model.v1") == "$KV.models.org=2Fmodel=2Ev1"
    assert subjects.bucket_subject("models", ">") == "$KV.models.>"
