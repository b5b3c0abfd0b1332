"""What may be chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runners.llama_cpp.tuning import Choices, Tuning, fewer_threads, untuned


@pytest.mark.parametrize(
    ("processors", "cores", "counts"),
    [
        (1, 1, ()),
        (2, 2, (1,)),
        (2, 1, (1,)),
        (4, 2, (3, 2, 1)),
        (8, 8, (7, 4, 2)),
        (8, 4, (7, 4, 2)),
        (12, 6, (11, 6, 3)),
        (24, 16, (23, 16, 12, 6)),
    ],
)
def test_fewer_threads_than_processors(processors: int, cores: int, counts: tuple[int, ...]) -> None:
    assert fewer_threads(processors, cores) == counts


@given(processors=st.integers(1, 1024), cores=st.integers(1, 1024))
def test_few_counts_are_tried_and_each_is_a_count(processors: int, cores: int) -> None:
    counts = fewer_threads(processors, cores)
    assert len(counts) <= 4
    assert all(0 < count < processors for count in counts)
    assert list(counts) == sorted(set(counts), reverse=True)


@given(batch_tokens=st.integers(1, 100_000), trained=st.integers(1, 100_000), threads=st.integers(1, 64))
def test_micro_batches_are_no_larger_than_a_prompt_and_cut_it_differently(
    batch_tokens: int, trained: int, threads: int
) -> None:
    choices = Choices(untuned(threads, batch_tokens), (), min(batch_tokens, trained))
    prompts = choices.prompts()
    assert prompts == sorted(set(prompts), reverse=True)
    assert all(0 < prompt <= choices.max_prompt for prompt in prompts)
    for prompt in prompts:
        parts = [min(prompt, size) for size in (choices.default.micro_batch, *choices.micro_batches(prompt))]
        assert len(set(parts)) == len(parts)
        for size in choices.micro_batches(prompt):
            assert size in (128, 256, 512, 1024)
            assert size <= batch_tokens
            assert choices.include(Tuning(threads, threads, size))


@pytest.mark.parametrize(
    ("batch_tokens", "prompt", "sizes"),
    [
        (512, 512, (128, 256)),
        (512, 256, (128,)),
        (2048, 1024, (128, 256, 1024)),
        (300, 300, (128, 256)),
        (128, 128, ()),
        (16, 16, ()),
    ],
)
def test_the_default_is_not_tried_under_another_name(batch_tokens: int, prompt: int, sizes: tuple[int, ...]) -> None:
    assert Choices(untuned(2, batch_tokens), (), batch_tokens).micro_batches(prompt) == sizes


def test_small_batches_and_configured_threads_leave_no_choice() -> None:
    assert Choices(untuned(2, 128), (), 128).are_none
    assert not Choices(untuned(2, 128), (1,), 128).are_none
    assert not Choices(untuned(2, 512), (), 512).are_none
    assert Choices(untuned(2, 512), (), 128).are_none


def test_what_did_not_come_of_the_choices_is_told_apart() -> None:
    choices = Choices(untuned(4, 512), (2,), 512)
    assert choices.include(Tuning(2, 4, 256))
    assert not choices.include(Tuning(3, 4, 512))
    assert not choices.include(Tuning(4, 4, 1024))
    assert not choices.include(Tuning(4, 4, 100))


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (Tuning(1, 1, 512), "1 thread, micro-batches of 512"),
        (Tuning(2, 2, 40), "2 threads, micro-batches of 40"),
        (Tuning(1, 2, 512), "1 thread for one row and 2 threads for more, micro-batches of 512"),
    ],
)
def test_in_words(tuning: Tuning, words: str) -> None:
    assert tuning.in_words == words
    assert tuning.most_threads == max(tuning.threads, tuning.batch_threads)
