"""Claims come from the journal, tokens from a worker: in whatever order, there is one text."""

from broker.journal_view import JournalView
from broker.live_view import LiveView
from schemas.events import Cancelled, Delta, Failed, Finished, Held, Released, Started, Usage


def _ignore(view: JournalView) -> None:
    return


def _view() -> LiveView:
    return LiveView("r1", _ignore)


def _started(run: str) -> Started:
    return Started(run, f"worker-{run}", "ack", f"model-{run}")


def _delta(run: str, index: int, length: int = 1) -> Delta:
    """Tokens whose text says who wrote them and where they belong."""
    token_ids = list(range(index, index + length))
    return Delta(run, index, token_ids, [f"{run}{token} " for token in token_ids])


def _asks(run: str, index: int) -> Delta:
    return Delta(run, index, [], [])


def test_tokens_that_overtake_the_claim_wait_for_it() -> None:
    view = _view()
    view.take_live(_delta("A", 0))
    view.take_live(_delta("Z", 0))
    view.take_live(_delta("A", 1))
    assert view.fold.length == 0
    view.take(_started("A"), 1)
    assert view.fold.text() == "A0 A1 "


def test_what_waits_is_bounded_and_its_beginning_is_kept() -> None:
    view = _view()
    for index in range(10_000):
        view.take_live(_delta("A", index))
    view.take(_started("A"), 1)
    assert 0 < view.fold.length < 1000
    view.take_live(_delta("A", view.fold.length, 5))
    assert view.fold.token_ids == list(range(view.fold.length))


def test_once_a_claim_is_known_an_earlier_one_says_nothing_more() -> None:
    view = _view()
    view.take(_started("A"), 1)
    view.take_live(_delta("A", 0, 2))
    view.take(_started("B"), 2)
    known = view.held_after(_asks("B", 0))
    assert known == Held("B", 2, [0, 1], ["A0 ", "A1 "], "model-A")
    view.take_live(_delta("A", 2))
    view.take_live(_delta("B", 2))
    assert view.fold.text() == "A0 A1 B2 "
    assert view.held_after(_asks("B", 3)) == Held("B", 3, [], [], "model-B")


def test_a_claim_that_was_not_read_yet_is_not_answered_for() -> None:
    view = _view()
    assert view.held_after(_asks("A", 0)) == Held(None, 0, [], [], None)
    view.take(_started("A"), 1)
    view.take_live(_delta("A", 0))
    assert view.held_after(_asks("B", 0)).run == "A"
    view.take(Released("A"), 2)
    assert view.held_after(_asks("B", 0)).run is None


def test_a_gap_is_not_jumped() -> None:
    view = _view()
    view.take(_started("A"), 1)
    view.take_live(_delta("A", 0))
    view.take_live(_delta("A", 2))
    assert view.fold.length == 1
    view.take_live(_delta("A", 1, 3))
    assert view.fold.text() == "A0 A1 A2 A3 "


def test_an_end_counts_only_with_all_its_tokens() -> None:
    whole, short = _view(), _view()
    for view in (whole, short):
        view.take(_started("A"), 1)
        view.take_live(_delta("A", 0, 2))
    whole.take(Finished("A", "stop", Usage(1, 2), [], []), 2)
    assert isinstance(whole.fold.terminal, Finished)
    short.take(Finished("A", "stop", Usage(1, 3), [], []), 2)
    assert isinstance(short.fold.terminal, Failed)
    assert (short.fold.terminal.code, short.fold.terminal.retryable) == ("internal", True)


def test_an_end_that_is_not_the_current_runs_is_no_end() -> None:
    view = _view()
    view.take(_started("A"), 1)
    view.take(_started("B"), 2)
    view.take(Finished("A", "stop", Usage(1, 3), [], []), 3)
    assert view.fold.terminal is None
    view.take(Cancelled("left"), 4)
    view.take_live(_delta("B", 0))
    assert view.fold.length == 0


def test_only_the_one_in_charge_keeps_a_stream_from_counting_as_silent() -> None:
    view = _view()
    view.take(_started("A"), 1)
    view.take(_started("B"), 2)
    view.last_activity = 0.0
    view.take_live(_delta("A", 0))
    assert view.last_activity == 0.0
    view.take_live(_delta("B", 0))
    assert view.last_activity > 0.0


def test_a_long_text_is_told_in_parts() -> None:
    view = _view()
    view.take(_started("A"), 1)
    view.take_live(_delta("A", 0, 20_000))
    told: list[int] = []
    while len(told) < view.fold.length:
        told += view.held_after(_asks("B", len(told))).token_ids
    assert told == view.fold.token_ids
