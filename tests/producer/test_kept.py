"""What an edge keeps of answers that are nowhere else, and for how long."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from producer.edge import kept
from producer.edge.calls import Call, LiveCalls
from producer.edge.kept import KeptAnswers
from schemas.errors import ErrorCode, ServingError
from tests.producer.hand_fed import make_call, started_view


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    times = [1000.0]
    monkeypatch.setattr(kept.time, "monotonic", lambda: times[0])
    return times


def ended(text: str = "text", *, request_id: str = "abc") -> Call:
    view = started_view()
    view.say(text)
    view.finish()
    call = make_call(view)
    call.header = replace(call.header, request_id=request_id)
    call.is_journaled = False
    return call


def added(calls: LiveCalls, call: Call) -> Call:
    calls.add(call)
    return call


def journaled(call: Call) -> None:
    call.is_journaled = True


def followed(call: Call) -> None:
    call.is_followed = True


def delivered(call: Call) -> None:
    call.delivered = True


def broken(call: Call) -> None:
    call.failure = ServingError(ErrorCode.INTERNAL, "x")


@pytest.mark.parametrize("change", [journaled, followed, delivered, broken])
def test_what_nobody_can_want_from_here_goes(change: Callable[[Call], None]) -> None:
    calls = LiveCalls(100)
    call = added(calls, ended())
    change(call)
    assert not KeptAnswers(calls, 900, 1 << 20).keep(call)


def test_an_answer_that_was_not_delivered_stays_for_its_time(now: list[float]) -> None:
    calls = LiveCalls(100)
    answers = KeptAnswers(calls, 900, 1 << 20)
    call = added(calls, ended())
    assert answers.keep(call)
    assert (calls.get("abc"), len(calls), list(calls)) == (call, 0, [call])
    now[0] += 899
    assert answers.keep(call)
    now[0] += 1
    assert not answers.keep(call)
    calls.remove(call)
    assert calls.get("abc") is None


def test_once_delivered_it_goes_unless_its_key_says_it_may_be_asked_for() -> None:
    calls = LiveCalls(100)
    answers = KeptAnswers(calls, 900, 1 << 20)
    plain, keyed = added(calls, ended()), added(calls, ended(request_id="keyed"))
    keyed.idempotency_key = "k"
    assert answers.keep(plain) and answers.keep(keyed)
    plain.delivered = keyed.delivered = True
    assert not answers.keep(plain)
    assert answers.keep(keyed)


def test_when_there_is_no_room_the_oldest_go_first() -> None:
    calls = LiveCalls(100)
    answers = KeptAnswers(calls, 900, 200_000)
    old, new = added(calls, ended("x" * 80_000, request_id="old")), added(calls, ended("x" * 80_000, request_id="new"))
    assert answers.keep(old) and answers.keep(new)
    newest = added(calls, ended("x" * 80_000, request_id="newest"))
    assert answers.keep(newest)
    assert [answers.keep(call) for call in (old, new, newest)] == [False, True, True]
    huge = added(calls, ended("x" * 300_000, request_id="huge"))
    assert not answers.keep(huge)
    assert not answers.keep(new)
