"""The fold as a law: whatever is fed, there is one prefix that only grows, and one end."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import (
    Accepted,
    Advanced,
    Cancelled,
    Delta,
    Event,
    Failed,
    Finished,
    Progress,
    Released,
    Started,
    Usage,
)
from schemas.fold import Fold, fold

_HEAD = Accepted("r1", "k", "completions", "m", 1, {}, "", None)
_USAGE = Usage(1, 1)


def _started(run: str) -> Started:
    return Started(run, f"worker-{run}", "ack", "f")


def _delta(run: str, index: int, length: int, salt: str = "") -> Delta:
    """Tokens whose text says who wrote them and where they belong."""
    salt = salt or run
    token_ids = [index + offset for offset in range(length)]
    return Delta(run, index, token_ids, [f"{salt}{token} " for token in token_ids])


def _finished(run: str, length: int) -> Finished:
    delta = _delta(run, 0, length)
    return Finished(run, "stop", _USAGE, delta.token_ids, delta.pieces)


_runs = st.sampled_from("ABC")
_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(_started, _runs),
    st.builds(Released, _runs),
    st.builds(_delta, _runs, st.integers(0, 12), st.integers(0, 5)),
    st.builds(Progress, _runs, st.integers(0, 9), st.integers(0, 9)),
    st.builds(_finished, _runs, st.integers(0, 15)),
    st.builds(Advanced, _runs, st.integers(0, 12)),
    st.builds(lambda run: Failed(run, "internal", "x", False), st.none() | _runs),
    st.just(Cancelled("left")),
    st.just(_HEAD),
)


@given(st.lists(_events, max_size=40))
def test_the_prefix_only_grows_and_nothing_counts_after_the_end(events: list[Event]) -> None:
    state = Fold()
    ends = 0
    for seq, event in enumerate(events, start=1):
        before, ended = list(zip(state.token_ids, state.pieces, strict=True)), state.terminal
        has_news = state.feed(event, seq)
        after = list(zip(state.token_ids, state.pieces, strict=True))
        assert after[: len(before)] == before
        assert state.length == len(after)
        if ended is not None:
            assert (after, state.terminal, has_news) == (before, ended, False)
        ends += ended is None and state.terminal is not None
        assert has_news == (len(after) > len(before) or (ended is None and state.terminal is not None))
    assert ends <= 1


@given(st.lists(_events, max_size=40), st.integers(0, 40))
def test_readers_that_join_later_see_the_same(events: list[Event], cut: int) -> None:
    """A live reader, one that read half before, and one that reads all at once agree at every position."""
    live = Fold()
    for seq, event in enumerate(events, start=1):
        live.feed(event, seq)
    whole = fold(enumerate(events, start=1))
    assert _state(live) == _state(whole)
    earlier = fold(enumerate(events[:cut], start=1))
    assert whole.token_ids[: earlier.length] == earlier.token_ids
    assert whole.pieces[: earlier.length] == earlier.pieces


def _state(state: Fold) -> tuple[object, ...]:
    return tuple(getattr(state, name) for name in Fold.__slots__)


@given(st.permutations(range(8)), st.integers(0, 6), st.integers(0, 6))
def test_a_zombies_words_among_those_of_the_new_run_change_nothing(order: list[int], prefix: int, extra: int) -> None:
    """Any interleaving of what two runs write after the takeover gives the text that the new run alone gives."""
    before: list[Event] = [_HEAD, _started("A"), _delta("A", 0, prefix)]
    new: list[Event] = [_delta("B", prefix + index, 1) for index in range(3)]
    new.append(_delta("B", prefix, 4))  # the checkpoint
    zombie: list[Event] = [_delta("A", prefix + index, 1) for index in range(3)]
    zombie.append(_delta("A", 0, prefix + 3 + extra))
    ours, theirs = iter(new), iter(zombie)
    mixed = [next(ours) if place < 4 else next(theirs) for place in order]
    alone = fold(enumerate([*before, _started("B"), *new], start=1))
    together = fold(enumerate([*before, _started("B"), *mixed], start=1))
    assert together.pieces == alone.pieces
    assert together.text(prefix) == "".join(f"B{prefix + index} " for index in range(4))


@given(st.integers(0, 20), st.sets(st.integers(0, 19)), st.booleans())
def test_an_end_heals_any_gap(length: int, lost: set[int], with_checkpoint: bool) -> None:
    events: list[Event] = [_started("A")]
    events += [_delta("A", index, 1) for index in range(length) if index not in lost]
    if with_checkpoint:
        events.append(_delta("A", 0, length))
    state = fold(enumerate(events, start=1))
    known = next((index for index in range(length) if index in lost), length)
    assert state.length == (length if with_checkpoint else known)
    assert state.gap == (not with_checkpoint and any(index > known for index in range(length) if index not in lost))
    assert state.feed(_finished("A", length))
    assert (state.token_ids, state.gap) == (list(range(length)), state.gap and state.length == known)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 6)), max_size=20))
def test_overlaps_of_one_run_add_only_their_tail(pieces: list[tuple[int, int]]) -> None:
    state = Fold()
    state.feed(_started("A"), 1)
    for index, length in pieces:
        state.feed(_delta("A", index, length))
    assert state.token_ids == list(range(state.length))
    assert state.text() == "".join(f"A{index} " for index in range(state.length))


def test_text_can_be_cut_anywhere() -> None:
    state = Fold()
    state.feed(_started("A"), 1)
    state.feed(Delta("A", 0, [1, 2, 3], ["", "he", "llo"]))
    assert (state.text(), state.text(1), state.text(2), state.text(0, 2)) == ("hello", "hello", "llo", "he")


def test_only_the_current_run_or_an_edge_ends_a_request() -> None:
    state = Fold()
    state.feed(_started("A"), 1)
    state.feed(_started("B"), 2)
    assert not state.feed(_finished("A", 3))
    assert not state.feed(Failed("A", "internal", "x", False))
    assert state.feed(Failed(None, "deadline_exceeded", "x", False))
    assert not state.feed(_finished("B", 3))
    assert state.length == 0


def test_a_released_run_keeps_its_text_but_says_nothing_more() -> None:
    state = Fold()
    state.feed(_started("A"), 1)
    state.feed(_delta("A", 0, 2))
    state.feed(Released("A"))
    assert not state.feed(_delta("A", 2, 1))
    assert (state.run, state.started, state.length) == (None, None, 2)


def test_claims_without_progress_are_counted_and_hand_backs_are_not() -> None:
    state = Fold()
    for number, run in enumerate("ABC", start=1):
        state.feed(_started(run), number)
        assert state.claims_without_progress == number
    state.feed(Released("C"))
    assert state.claims_without_progress == 2
    state.feed(_started("D"))
    state.feed(_delta("D", 0, 1))
    assert state.claims_without_progress == 0


def test_a_hand_back_after_progress_takes_off_no_failure_to_come() -> None:
    state = Fold()
    for run in "AB":
        state.feed(_started(run))
        state.feed(_delta(run, state.length, 1))
        state.feed(Released(run))
    state.feed(_started("C"))
    assert state.claims_without_progress == 1


def test_a_run_without_a_journal_makes_progress_only_beyond_what_was_reached() -> None:
    state = Fold()
    state.feed(_started("A"))
    assert not state.feed(Advanced("A", 0))
    assert state.claims_without_progress == 1
    state.feed(Advanced("A", 5))
    assert (state.claims_without_progress, state.reached, state.length) == (0, 5, 0)
    state.feed(_started("B"))
    state.feed(Advanced("A", 9))  # of a run that is over
    state.feed(Advanced("B", 5))
    assert (state.claims_without_progress, state.reached) == (1, 5)


def test_the_position_of_the_claim_is_kept() -> None:
    state = fold([(5, _HEAD), (7, _started("A"))])
    assert (state.started_seq, state.started, state.accepted) == (7, _started("A"), _HEAD)
