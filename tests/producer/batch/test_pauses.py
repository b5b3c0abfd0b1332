from producer.edge.batch.pauses import Pauses, delay_s, turn_delay_s
from schemas.errors import ErrorCode, ServingError


def _refusal(code: ErrorCode, retry_after_s: float | None = 30.0) -> ServingError:
    return ServingError(code, "not now", retryable=True, retry_after_s=retry_after_s)


def test_a_line_comes_again_later_each_time_and_within_a_minute() -> None:
    delays = [delay_s(number) for number in range(1, 12)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.5, 16.0)
    assert delay_s(1, 30.0) == 30.0
    assert delay_s(1, 3600.0) == 60.0
    assert turn_delay_s(1) == 0.5
    assert turn_delay_s(1000) == 4.0


def test_limits_hold_for_who_came_to_them_and_a_missing_worker_for_all() -> None:
    pauses = Pauses()
    pauses.note("alice", "m", _refusal(ErrorCode.RATE_LIMITED))
    assert 0 < pauses.left_s("alice", "m") <= 30
    assert pauses.left_s("bob", "m") == pauses.left_s("alice", "other") == 0
    pauses.note("alice", "n", _refusal(ErrorCode.NO_WORKER))
    assert pauses.left_s("bob", "n") > 0


def test_when_results_find_no_room_everybody_waits() -> None:
    pauses = Pauses()
    pauses.note_everything(5.0)
    assert 0 < pauses.left_s("anybody", "anything") <= 5
