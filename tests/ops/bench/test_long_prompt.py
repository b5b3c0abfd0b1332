"""What a long prompt did to the others is told by the gaps that its reading touched."""

import pytest

from ops.bench.answer import Sample
from ops.bench.long_prompt import LONG_PROMPT_WORDS, Disturbance, disturbance
from ops.bench.prompts import long_prompt


def chat(*content_at: float) -> Sample:
    return Sample(0.0, content_at[0], content_at[-1], content_at[-1], 10, 20, content_at=content_at)


def test_only_gaps_that_the_reading_touches_count_against_it() -> None:
    long = Sample(10.0, 12.0, 13.0, 13.0, 1500, 16, content_at=(12.0, 13.0))
    chats = [chat(1.0, 5.0, 9.5, 10.5, 11.0, 11.75, 12.75, 20.0), chat(9.0, 10.0, 10.25, 12.0, 14.0)]
    found = disturbance(chats, long)
    # 4.0 s before it and 7.25 s after it are somebody else's doing.
    assert found.worst_ms == pytest.approx(1750)
    assert found.median_ms == pytest.approx(1000)
    assert found.ratio == pytest.approx(1.75)
    assert (found.prompt_tokens, found.read_ms) == (1500, pytest.approx(2000))


def test_prompts_are_long_and_no_two_begin_alike() -> None:
    texts = [long_prompt(number, LONG_PROMPT_WORDS) for number in range(6)]
    assert {len(text.split()) for text in texts} == {LONG_PROMPT_WORDS}
    assert len({tuple(text.split()[:2]) for text in texts}) == 6


def test_a_trial_without_disturbance_says_so() -> None:
    assert Disturbance(1500, 1.0, 10.0, 10.0, 10.0).ratio == 1.0
