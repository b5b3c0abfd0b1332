"""What is held back, for how long, and in which form it goes on."""

from schemas.errors import ErrorCode, ServingError
from schemas.events import FinishReason, Usage
from workers.engine.messages import Completed, Errored, PrefillProgress, Tokens
from workers.engine.outbox import Outbox


def tokens(name: str, *ids: int) -> Tokens:
    return Tokens(name, list(ids), [f"<{token_id}>" for token_id in ids])


def end(name: str, *ids: int) -> Completed:
    return Completed(name, FinishReason.STOP, Usage(1, len(ids)), list(ids), [f"<{token_id}>" for token_id in ids])


def test_a_first_token_does_not_wait() -> None:
    outbox = Outbox(1.0)
    outbox.add([tokens("a", 1)], now=5.0)
    assert outbox.is_due
    assert outbox.take(5.0) == [tokens("a", 1)]


def test_tokens_that_release_no_text_yet_are_no_first_word() -> None:
    outbox = Outbox(1.0)
    outbox.add([Tokens("a", [1], [""])], now=5.0)
    outbox.take(5.0)
    outbox.add([tokens("a", 2)], now=5.1)
    assert outbox.is_due


def test_the_next_ones_go_together_once_the_interval_is_over() -> None:
    outbox = Outbox(1.0)
    outbox.add([tokens("a", 1)], now=5.0)
    outbox.take(5.0)
    outbox.add([tokens("a", 2)], now=5.4)
    outbox.add([tokens("a", 3)], now=5.8)
    assert not outbox.is_due
    outbox.add([tokens("a", 4)], now=6.0)
    assert outbox.is_due
    assert outbox.take(6.0) == [tokens("a", 2, 3, 4)]


def test_a_sequence_that_begins_takes_what_others_have_along() -> None:
    outbox = Outbox(1.0)
    outbox.add([tokens("a", 1)], now=5.0)
    outbox.take(5.0)
    outbox.add([tokens("a", 2)], now=5.1)
    outbox.add([tokens("a", 3), tokens("b", 7)], now=5.2)
    assert outbox.is_due
    assert outbox.take(5.2) == [tokens("a", 2, 3), tokens("b", 7)]


def test_an_end_does_not_wait_and_carries_the_tokens_before_it() -> None:
    outbox = Outbox(1.0)
    outbox.add([tokens("a", 1)], now=5.0)
    outbox.take(5.0)
    outbox.add([tokens("a", 2)], now=5.1)
    outbox.add([end("a", 3)], now=5.2)
    assert outbox.is_due
    [last] = outbox.take(5.2)
    assert isinstance(last, Completed)
    assert last.token_ids == [2, 3]
    assert last.pieces == ["<2>", "<3>"]


def test_a_failure_does_not_wait_and_leaves_the_tokens_before_it_valid() -> None:
    outbox = Outbox(1.0)
    outbox.add([tokens("a", 1)], now=5.0)
    outbox.take(5.0)
    failed = Errored("a", ServingError(ErrorCode.INTERNAL, "no"))
    outbox.add([tokens("a", 2)], now=5.1)
    outbox.add([failed], now=5.2)
    assert outbox.is_due
    assert outbox.take(5.2) == [tokens("a", 2), failed]


def test_progress_alone_is_no_reason_to_hand_over() -> None:
    outbox = Outbox(1.0)
    outbox.add([PrefillProgress("a", 8, 16)], now=5.0)
    assert not outbox.is_due
    assert outbox.take(5.1) == [PrefillProgress("a", 8, 16)]


def test_without_an_interval_nothing_is_held_back() -> None:
    outbox = Outbox(0.0)
    for token_id in (1, 2):
        outbox.add([tokens("a", token_id)], now=5.0)
        assert outbox.is_due
        assert outbox.take(5.0) == [tokens("a", token_id)]
