from hypothesis import given
from hypothesis import strategies as st

from broker.records import Record
from broker.subjects import journal
from broker.takeover import ClaimOutcome, judge
from schemas.codec import encode_event
from schemas.events import Accepted, Cancelled, Delta, Event, Failed, Finished, Progress, Released, Started, Usage

_SUBJECTS = journal("e1", "r1")
_HEAD = Accepted("r1", "k", "completions", "m", 1, {}, "", None)


def _records(*events: Event | bytes) -> list[Record]:
    found = []
    for seq, event in enumerate(events, start=1):
        subject = _SUBJECTS.ev
        if isinstance(event, Accepted):
            subject = _SUBJECTS.head
        elif isinstance(event, (Started, Released, Cancelled)):
            subject = _SUBJECTS.run
        found.append(Record(subject, seq, event if isinstance(event, bytes) else encode_event(event)))
    return found


def _started(run: str, fingerprint: str = "f") -> Started:
    return Started(run, "w", "ack", fingerprint)


def test_nothing_but_a_head_is_fresh() -> None:
    takeover = judge(_records(_HEAD), 3)
    assert (takeover.outcome, takeover.fingerprint) == (ClaimOutcome.FRESH, None)
    assert judge([], 3).outcome is ClaimOutcome.FRESH


def test_the_fingerprint_is_that_of_the_last_run_that_wrote_a_token() -> None:
    takeover = judge(
        _records(_HEAD, _started("A", "one"), Delta("A", 0, [1], ["a"]), _started("B", "two"), Progress("B", 1, 2)), 3
    )
    assert (takeover.outcome, takeover.fingerprint, takeover.fold.token_ids) == (ClaimOutcome.CONTINUE, "one", [1])


def test_ends_of_the_current_run_or_an_edge_settle() -> None:
    run = (_HEAD, _started("A"))
    for end in (
        Finished("A", "stop", Usage(1, 0), [], []),
        Failed("A", "internal", "x", False),
        Failed(None, "deadline_exceeded", "x", False),
        Cancelled("left"),
    ):
        assert judge(_records(*run, end), 3).outcome is ClaimOutcome.SETTLED
    assert judge(_records(*run, _started("B"), Failed("A", "internal", "x", False)), 3).outcome is ClaimOutcome.FRESH


def test_claims_without_progress_add_up_to_poison_and_hand_backs_do_not() -> None:
    claims = [_started(run) for run in "ABC"]
    assert judge(_records(_HEAD, *claims), 3).outcome is ClaimOutcome.POISONED
    assert judge(_records(_HEAD, *claims[:2]), 3).outcome is ClaimOutcome.FRESH
    assert judge(_records(_HEAD, *claims, Released("C")), 3).outcome is ClaimOutcome.FRESH
    assert judge(_records(_HEAD, *claims, Delta("C", 0, [1], ["a"])), 3).outcome is ClaimOutcome.CONTINUE


def test_a_journal_without_its_beginning_is_expired() -> None:
    assert judge(_records(Delta("A", 3, [4], ["d"])), 3).outcome is ClaimOutcome.EXPIRED
    assert judge(_records(_started("B"), Delta("B", 3, [4], ["d"])), 3).outcome is ClaimOutcome.EXPIRED
    # Head present: the first deltas were never stored, and nobody has seen them.
    assert judge(_records(_HEAD, _started("B"), Delta("B", 3, [4], ["d"])), 3).outcome is ClaimOutcome.FRESH
    # Published by hand, without a head, and whole.
    assert judge(_records(_started("B"), Delta("B", 0, [4], ["d"])), 3).outcome is ClaimOutcome.CONTINUE


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_junk_in_a_journal_is_passed_over(junk: list[bytes]) -> None:
    takeover = judge(_records(_HEAD, *junk), 3)
    assert takeover.outcome in ClaimOutcome
