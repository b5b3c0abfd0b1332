"""The prompts are alike in length and share no beginning."""

from itertools import islice
from statistics import fmean

from ops.bench.plan import PROMPT_ROOM, Kind
from ops.bench.prompts import (
    LONG_TOKENS,
    long_prompts,
    prompt,
    prompts,
    prompts_that_share,
    shared_prefix,
)

# English text has 4.6 bytes a token with the tokenizers of small models.
BYTES_PER_TOKEN = 4.6
NUM_CHECKED = 2000


def test_prompts_are_all_different() -> None:
    texts = list(islice(prompts(), NUM_CHECKED))
    assert len(set(texts)) == NUM_CHECKED


def test_no_two_of_the_first_992_begin_with_the_same_words() -> None:
    beginnings = [text.split()[:2] for text in islice(prompts(), 992)]
    assert len({tuple(words) for words in beginnings}) == 992


def test_neighbours_differ_in_their_first_word() -> None:
    first_words = [prompt(number).split()[0] for number in range(32)]
    assert len(set(first_words)) == 32


def test_prompts_have_about_51_tokens() -> None:
    sizes = [len(text.encode()) / BYTES_PER_TOKEN for text in islice(prompts(), NUM_CHECKED)]
    assert min(sizes) > 44 and max(sizes) < 58
    assert 49 < fmean(sizes) < 53


def test_a_number_always_has_the_same_prompt() -> None:
    assert prompt(1234) == prompt(1234) == next(islice(prompts(), 1234, None))


def test_the_shared_prefix_has_300_words_and_a_different_question_behind_it() -> None:
    texts = list(islice(prompts_that_share(), NUM_CHECKED))
    prefix = shared_prefix()
    assert len(prefix.split()) == 300
    assert all(text.startswith(prefix + " ") for text in texts)
    assert len(set(texts)) == NUM_CHECKED
    assert max(len(text.encode()) for text in texts) / BYTES_PER_TOKEN < 0.9 * PROMPT_ROOM[Kind.SHARED]


def test_no_other_prompt_begins_like_the_shared_prefix() -> None:
    beginning = shared_prefix().split()[:2]
    assert all(text.split()[:2] != beginning for text in islice(prompts(), 992))


def test_long_prompts_have_1500_tokens_of_the_model() -> None:
    """Of any tokenizer: here a word of more than six letters has two."""

    def count(text: str) -> int:
        return sum(1 + (len(word) > 6) for word in text.split())

    texts = list(islice(long_prompts(count), 8))
    assert all(LONG_TOKENS - 1 <= count(text) <= LONG_TOKENS for text in texts)
    assert len({tuple(text.split()[:2]) for text in texts}) == 8


def test_uncounted_long_prompts_are_about_as_long() -> None:
    sizes = [len(text.encode()) / BYTES_PER_TOKEN for text in islice(long_prompts(), 8)]
    assert all(abs(size - LONG_TOKENS) < 0.1 * LONG_TOKENS for size in sizes)
