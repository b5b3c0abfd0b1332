"""The time cap on prompt chunks beside decodes."""

from workers.engine.pace import StepPace

# More than any step takes.
LONG = 10_000


def test_unmeasured_a_small_chunk_is_tried() -> None:
    assert StepPace().prefill_cap(512, num_decodes=1, num_behind=1, num_missing=LONG) == 32
    assert StepPace().prefill_cap(10, num_decodes=1, num_behind=1, num_missing=LONG) == 10


def test_a_chunk_takes_about_one_and_a_half_median_decode_steps() -> None:
    pace = StepPace()
    for _ in range(20):
        pace.observe(8, 0, 0.041)
    pace.observe(0, 320, 1.0)
    assert (
        16 <= pace.prefill_cap(512, num_decodes=8, num_behind=1, num_missing=LONG) <= 20
    )  # 1.4 x 41 ms x 320 tokens a second


def test_a_burst_behind_few_decodes_gets_larger_chunks() -> None:
    pace = StepPace()
    for num_decodes in (1, 4, 8):
        pace.observe(num_decodes, 0, 0.100)
    pace.observe(0, 100, 1.0)
    for num_decodes, num_behind, times in ((8, 1, 1), (4, 4, 1), (4, 8, 4), (1, 7, 49)):
        chunk = pace.prefill_cap(999, num_decodes=num_decodes, num_behind=num_behind, num_missing=LONG)
        assert abs(chunk - 14 * times) <= 1


def test_streams_need_not_be_faster_than_one_reads_when_half_as_many_wait() -> None:
    pace = StepPace()
    for num_decodes in (1, 2, 4, 8):
        pace.observe(num_decodes, 0, 0.010)
    pace.observe(0, 1000, 1.0)
    for num_decodes, num_behind in ((1, 1), (2, 1), (4, 2), (8, 4), (8, 8)):
        assert pace.prefill_cap(999, num_decodes=num_decodes, num_behind=num_behind, num_missing=LONG) == 40
    for num_decodes, num_behind in ((4, 1), (8, 1), (8, 3)):
        assert pace.prefill_cap(999, num_decodes=num_decodes, num_behind=num_behind, num_missing=LONG) in (13, 14)


def test_a_burst_that_fits_a_step_is_taken_whole() -> None:
    pace = StepPace()
    for num_decodes in (1, 4, 8):
        pace.observe(num_decodes, 0, 0.006)
    pace.observe(0, 400, 1.0)
    assert pace.prefill_cap(511, num_decodes=1, num_behind=7, num_missing=350) == 511
    assert pace.prefill_cap(508, num_decodes=4, num_behind=4, num_missing=200) == 508
    # More streams would wait than be helped, or for longer than a step.
    assert pace.prefill_cap(504, num_decodes=8, num_behind=7, num_missing=350) == 17
    assert pace.prefill_cap(508, num_decodes=4, num_behind=4, num_missing=600) == 17


def test_one_slow_step_does_not_move_the_median() -> None:
    pace = StepPace()
    pace.observe(0, 1000, 1.0)
    for duration in [0.01] * 10 + [5.0] + [0.01] * 10:
        pace.observe(4, 0, duration)
    assert pace.prefill_cap(512, num_decodes=4, num_behind=1, num_missing=LONG) == 13


def test_mixed_steps_settle_within_the_bound() -> None:
    """14 ms a decode step, 4,000 prompt tokens a second: the cap converges, and no step takes too long."""
    pace = StepPace()
    for _ in range(10):
        pace.observe(8, 0, 0.014)
    pace.observe(0, 512, 0.128)
    for _ in range(200):
        chunk = pace.prefill_cap(4096, num_decodes=8, num_behind=1, num_missing=LONG)
        duration = 0.014 + chunk / 4000
        assert duration <= 3 * 0.014
        pace.observe(8, chunk, duration)
    assert pace.prefill_cap(4096, num_decodes=8, num_behind=1, num_missing=LONG) >= 35


def test_no_gap_is_longer_than_three_steps_although_a_mixed_step_costs_more_than_its_parts() -> None:
    """28 ms a step of 8, 10 ms more when mixed, and prompt tokens that cost more the longer the prompt is."""
    pace = StepPace()
    for _ in range(10):
        pace.observe(8, 0, 0.028)
    pace.observe(0, 480, 1.2)
    done = 0
    while done < 1500:
        if pace.wants_decodes_only(8):
            pace.observe(8, 0, 0.028)
            continue
        chunk = pace.prefill_cap(512, num_decodes=8, num_behind=1, num_missing=LONG)
        duration = 0.038 + chunk / (350 - done / 15)
        if done > 100:  # the first estimate is of a prompt without decodes beside
            assert duration <= 3 * 0.028
        pace.observe(8, chunk, duration)
        done += chunk


def test_decodes_are_measured_first_and_again_among_many_mixed_steps() -> None:
    pace = StepPace()
    pace.observe(0, 512, 0.1)
    assert pace.wants_decodes_only(4)
    pace.observe(4, 0, 0.01)
    for _ in range(8):
        assert not pace.wants_decodes_only(4)
        pace.observe(4, 100, 0.03)
    assert pace.wants_decodes_only(4)
    pace.observe(4, 0, 0.01)
    assert not pace.wants_decodes_only(4)


def test_a_runner_with_a_fixed_step_time_gets_full_chunks() -> None:
    pace = StepPace()
    pace.observe(0, 10, 0.02)
    for _ in range(50):
        pace.observe(4, 0, 0.02)
        pace.observe(4, pace.prefill_cap(512, num_decodes=4, num_behind=1, num_missing=LONG), 0.02)
    assert pace.prefill_cap(512, num_decodes=4, num_behind=1, num_missing=LONG) == 512


def test_chunks_are_measured_by_the_decodes_beside_them() -> None:
    """A step of one says nothing of a step of eight on a processor, where each sequence costs."""
    pace = StepPace()
    pace.observe(0, 400, 1.0)
    pace.observe(1, 0, 0.006)
    assert pace.wants_decodes_only(6)
    pace.observe(6, 0, 0.025)
    assert not pace.wants_decodes_only(7)
    assert pace.prefill_cap(512, num_decodes=6, num_behind=2, num_missing=LONG) == 13
    assert pace.prefill_cap(512, num_decodes=1, num_behind=1, num_missing=LONG) == 17


def test_however_slow_a_prompt_gets_on() -> None:
    pace = StepPace()
    pace.observe(1, 0, 0.001)
    pace.observe(0, 10, 10.0)
    assert pace.prefill_cap(512, num_decodes=1, num_behind=1, num_missing=LONG) == 8
