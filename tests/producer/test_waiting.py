"""The books of what waits: requests no depth shows yet, tokens no depth ever shows, and what other edges say."""

import asyncio
import time
from collections.abc import Mapping

import pytest

from producer.edge import waiting as module
from producer.edge.retry_after import Line
from producer.edge.waiting import SETTLED_S, Waiting
from schemas.requests import PriorityClass
from tests.producer.hand_fed import HandFedView, make_call
from tests.support.waiting import until

LINE = Line("m", PriorityClass.NORMAL)
OTHER = Line("m", PriorityClass.LOW)


def test_a_request_is_unseen_until_a_depth_was_asked_for_after_it_was_submitted() -> None:
    waiting = Waiting("e1")
    ticket = waiting.admit(LINE, [5, 6])
    assert waiting.num_unseen(LINE, time.monotonic() + 60) == 2
    before = time.monotonic()
    ticket.submitted()
    assert waiting.num_unseen(LINE, before) == 2
    # An acknowledged request may take a moment to show.
    assert waiting.num_unseen(LINE, time.monotonic()) == 2
    assert waiting.num_unseen(LINE, time.monotonic() + SETTLED_S) == 0
    assert waiting.num_unseen(LINE, before) == 2
    assert waiting.num_unseen(OTHER, before) == 0


def test_tokens_wait_until_their_request_has_started_or_ended() -> None:
    waiting = Waiting("e1")
    views = HandFedView(), HandFedView(), HandFedView()
    ticket = waiting.admit(LINE, [1, 10, 100])
    ticket.follow(make_call(*views))
    ticket.submitted()
    views[0].start()
    assert waiting.tokens(LINE) == 111
    waiting.drop_started(LINE)
    assert waiting.tokens(LINE) == 110
    views[1].fail()
    views[1].start()
    views[2].start()
    waiting.drop_started(LINE)
    assert waiting.tokens(LINE) == 0
    ticket.release()
    assert waiting.tokens(LINE) == 0


def test_what_was_not_submitted_leaves_nothing() -> None:
    waiting = Waiting("e1")
    ticket = waiting.admit(LINE, [7])
    ticket.release()
    ticket.release()
    ticket.submitted()
    assert waiting.tokens(LINE) == 0
    assert waiting.num_unseen(LINE, 0.0) == 0


def test_a_call_that_was_given_up_waits_no_longer() -> None:
    waiting = Waiting("e1")
    call = make_call(HandFedView())
    ticket = waiting.admit(LINE, [7])
    ticket.follow(call)
    ticket.submitted()
    call.retired = True
    waiting.drop_started(LINE)
    assert waiting.tokens(LINE) == 0


def test_edges_that_fall_silent_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENT_S", 0.0)
    waiting = Waiting("e1")
    waiting.heard("e2", {LINE: 5})
    assert waiting.tokens(LINE) == 0
    monkeypatch.setattr(module, "_SILENT_S", 60.0)
    waiting.heard("e2", {LINE: 5})
    waiting.heard("e1", {LINE: 1000})
    waiting.heard("e3", {LINE: 7, OTHER: 1})
    assert (waiting.tokens(LINE), waiting.tokens(OTHER)) == (12, 1)
    assert (waiting.num_edges(LINE), waiting.num_edges(OTHER)) == (3, 2)
    waiting.heard("e2", {})
    assert waiting.tokens(LINE) == 7


def test_the_number_of_edges_that_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_EDGES", 3)
    waiting = Waiting("e1")
    for number in range(10):
        waiting.heard(f"x{number}", {LINE: 1})
    assert waiting.tokens(LINE) == 3


async def test_sums_are_told_when_they_change_and_while_they_are_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_REPEAT_S", 0.05)
    waiting = Waiting("e1")
    told: list[Mapping[tuple[str, PriorityClass], int]] = []

    async def announce(tokens: Mapping[tuple[str, PriorityClass], int]) -> None:
        told.append(tokens)

    task = asyncio.create_task(waiting.run(announce))
    view = HandFedView()
    ticket = waiting.admit(LINE, [5])
    ticket.follow(make_call(view))
    ticket.submitted()
    await until(lambda: len(told) >= 3)
    assert told[:3] == [{LINE: 5}] * 3
    view.start()
    await until(lambda: told[-1] == {})
    # Nothing is left to be told, and nothing is held.
    monkeypatch.setattr(module, "_KEPT_S", 0.0)
    await until(lambda: not waiting._books)
    assert told.count({}) == 1
    task.cancel()
    await asyncio.wait({task})
