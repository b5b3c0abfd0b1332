"""How many calls an edge lets in, and how many bytes of their bodies."""

from collections.abc import Callable

import pytest

from producer.edge.arrivals import Arrivals
from producer.edge.calls import LiveCalls
from producer.edge.rates import ServiceRates
from producer.edge.retry_after import RetryAfter
from schemas.errors import ErrorCode, ServingError
from tests.producer.hand_fed import make_call, started_view


def make(max_held: int = 2, max_bytes: int = 100) -> tuple[Arrivals, LiveCalls]:
    calls = LiveCalls(max_held)
    return Arrivals(calls, max_held, max_bytes, RetryAfter(ServiceRates(lambda model: 1))), calls


def refused(attempt: Callable[[], object]) -> None:
    with pytest.raises(ServingError) as refusal:
        attempt()
    assert (refusal.value.code, refusal.value.status) == (ErrorCode.QUEUE_FULL, 429)
    assert refusal.value.retry_after_s is not None and refusal.value.retry_after_s > 0


def test_calls_count_from_the_door_to_their_end() -> None:
    arrivals, calls = make()
    call = make_call(started_view())
    with arrivals.enter(), arrivals.enter():
        refused(lambda: arrivals.enter().__enter__())
    calls.add(call)
    with arrivals.enter():
        refused(lambda: arrivals.enter().__enter__())
    assert not calls.is_full
    calls.remove(call)
    calls.remove(call)
    with arrivals.enter(), arrivals.enter():
        pass


def test_each_prompt_of_a_call_counts() -> None:
    arrivals, calls = make(max_held=4)
    calls.add(make_call(started_view(), started_view()))
    with arrivals.enter() as arrival:
        refused(lambda: arrival.take_places(3))
        arrival.take_places(2)
        refused(lambda: arrivals.enter().__enter__())
    assert calls.num_parts == 2


def test_a_call_with_more_prompts_than_an_edge_holds_passes_when_it_is_alone() -> None:
    arrivals, _ = make(max_held=2)
    with arrivals.enter() as arrival:
        arrival.take_places(5)
        refused(lambda: arrivals.enter().__enter__())


def test_bytes_count_for_all_calls_together_until_each_has_gone_in() -> None:
    arrivals, _ = make(max_bytes=10)
    with arrivals.enter() as first:
        first.take_bytes(6)
        with arrivals.enter() as second:
            second.take_bytes(4)
            refused(lambda: first.take_bytes(1))
        first.take_bytes(4)
    with arrivals.enter() as third:
        third.take_bytes(10)
