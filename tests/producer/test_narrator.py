"""Comments of a stream that has nothing to say."""

import time

from producer.edge.calls import Call
from producer.edge.narrator import Narrator
from producer.edge.position import Position
from producer.edge.rates import ServiceRates
from producer.edge.sse import PING, error_event, prefill_comment, queued_comment
from schemas.errors import ErrorCode, ServingError
from schemas.events import Progress
from tests.producer.hand_fed import HandFedView, make_call


def narrator(call: Call, interval_s: float = 0.0) -> Narrator:
    async def position_of(call: Call) -> Position:
        return Position(own=2, above=1)

    return Narrator(call, position_of, ServiceRates(lambda model: 1), interval_s)


async def test_it_says_what_the_call_is_waiting_for() -> None:
    view = HandFedView()
    call = make_call(view)
    comments = narrator(call)
    assert await comments.comment() == b": queued position=3 eta_s=3\n"
    view.start()
    assert await comments.comment() == PING
    view.progress = Progress("r", 1, 3)
    assert await comments.comment() == b": prefill 33%\n"
    call.first_token_at = time.monotonic()
    assert await comments.comment() == PING


async def test_it_is_silent_before_its_time_unless_asked_at_once() -> None:
    comments = narrator(make_call(HandFedView()), interval_s=60)
    assert await comments.comment() == b""
    assert await comments.comment(at_once=True) != b""
    assert 0 < comments.wait_s() <= 1


async def test_a_prompt_being_computed_is_reported_only_when_it_moved() -> None:
    view = HandFedView()
    view.start()
    comments = narrator(make_call(view), interval_s=60)
    comments._sent_at -= 1
    view.progress = Progress("r", 10, 100)
    assert await comments.comment() == b": prefill 10%\n"
    comments._sent_at -= 1
    assert await comments.comment() == b""
    view.progress = Progress("r", 20, 100)
    assert await comments.comment() == b": prefill 20%\n"


def test_comments_are_one_line_each() -> None:
    for comment in (PING, queued_comment(1, 2), prefill_comment(5)):
        assert comment.startswith(b": ") and comment.endswith(b"\n") and comment.count(b"\n") == 1
    assert error_event(ServingError(ErrorCode.INTERNAL, "a\nb")).count(b"\n") == 2
