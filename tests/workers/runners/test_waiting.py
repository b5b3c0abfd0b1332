"""Who has the processors, as the system tells it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runners.waiting import RunTime, run_time

NANOSECONDS = st.integers(0, 10**15)
RUN_TIMES = st.builds(RunTime, NANOSECONDS, NANOSECONDS)


def test_threads_are_added_up_and_those_that_have_ended_left_out(tmp_path: Path) -> None:
    for thread, text in {"1": "10 20 3\n", "2": "5 0 1\n", "3": "", "4": "not numbers\n"}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    (tmp_path / "5").mkdir()
    assert run_time(tmp_path) == RunTime(15, 20)


def test_a_system_that_does_not_tell_gives_zeros(tmp_path: Path) -> None:
    assert run_time(tmp_path / "absent") == RunTime(0, 0)


@pytest.mark.parametrize(
    ("spent", "share"), [((0, 0), 0.0), ((3, 1), 0.25), ((0, 5), 1.0), ((10, -4), 0.0), ((-10, 5), 0.0)]
)
def test_the_share_that_was_waited_for(spent: tuple[int, int], share: float) -> None:
    assert RunTime(*spent).share_waited == share


@given(before=RUN_TIMES, spent=RUN_TIMES)
def test_what_is_spent_is_what_came_on_top(before: RunTime, spent: RunTime) -> None:
    assert before.plus(spent).since(before) == spent
    assert 0 <= spent.share_waited <= 1
