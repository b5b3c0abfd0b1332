"""Batches: what is in one does not change what comes out, and what breaks a rule does not reach the library."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.counts import full_or
from tests.workers.runners.llama_cpp.driver import Driver, Feed
from workers.runners.base import Batch, FloatArray, ForwardStatus, Handle

pytestmark = [pytest.mark.llama, pytest.mark.unified_batch]

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n: int) -> int:\n    ",
    "Once upon a time, in a village by the sea, there lived",
    "1, 2, 3, 5, 8, 13,",
    "Water boils at",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three primary colours are",
    "SELECT name FROM users WHERE",
]
# Keys, values and attention are rounded to 16 bits, by row count differently. Other tokens make a difference of 5.
TINY_TOLERANCE = 0.15


def assert_same_model(ours: FloatArray, theirs: FloatArray) -> None:
    """Two teacher-forced paths over the same tokens, as far as quantised kernels agree.

    The other's argmax is within 1.5 of the top everywhere, and the mean KL at most 0.02.
    """
    assert ours.shape == theirs.shape
    rows = np.arange(len(ours))
    assert (ours.max(axis=1) - ours[rows, theirs.argmax(axis=1)] <= 1.5).all()
    p, q = log_softmax(ours), log_softmax(theirs)
    assert (np.exp(p) * (p - q)).sum(axis=1).mean() <= 0.02


def log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def encode(driver: Driver, text: str) -> list[int]:
    return driver.tokenizer.encode(text, add_bos=True, parse_special=True)


def test_a_batch_of_many_equals_each_alone(real: Driver) -> None:
    prompts = [encode(real, text)[:8] for text in PROMPTS]
    handles = [real.create() for _ in prompts]
    alone = [real.all_logits(handle, prompt) for handle, prompt in zip(handles, prompts, strict=True)]
    for handle in handles:
        real.runner.truncate(handle, 0)
    feeds = [Feed(handle, prompt, all_logits=True) for handle, prompt in zip(handles, prompts, strict=True)]
    together = np.split(real.forward(*feeds), np.cumsum([len(prompt) for prompt in prompts])[:-1])
    assert_same_model(np.concatenate(alone), np.concatenate(together))
    first_tokens = [(a[-1].argmax(), b[-1].argmax()) for a, b in zip(alone, together, strict=True)]
    assert sum(a == b for a, b in first_tokens) >= 0.9 * len(prompts)


def test_decodes_and_a_prompt_chunk_share_a_batch(real: Driver) -> None:
    prompt, other = encode(real, PROMPTS[0]), encode(real, PROMPTS[1] * 4)
    undisturbed, decoding, filling = real.create(), real.create(), real.create()
    reply = real.greedy(undisturbed, prompt, 8)
    alone = real.all_logits(real.create(), prompt + reply)[len(prompt) - 1 : -1]
    beside = [real.feed(decoding, prompt)]
    chunks = [other[at : at + 9] for at in range(0, len(other), 9)]
    for token_id, chunk in zip(reply[:-1], chunks, strict=False):
        beside.append(real.forward(Feed(filling, chunk), Feed(decoding, [token_id]))[1])
    assert_same_model(alone[: len(beside)], np.stack(beside))


def test_chunks_equal_the_whole(real: Driver) -> None:
    prompt = encode(real, " ".join(PROMPTS[:4]))
    whole, chunked = real.create(), real.create()
    logits = [real.feed(whole, prompt), real.feed(chunked, prompt, chunk=17)]
    assert_same_model(logits[0][None], logits[1][None])


def test_equal_chunks_give_equal_bits(real: Driver) -> None:
    prompt = encode(real, " ".join(PROMPTS[:4]))
    first, second = real.create(), real.create()
    assert np.array_equal(real.feed(first, prompt, chunk=16), real.feed(second, prompt, chunk=16))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_logits_come_in_the_order_of_the_rows(either: Driver, order: list[int]) -> None:
    handles = [either.create() for _ in range(4)]
    prompts = [[5 + 7 * number + step for step in range(number + 2)] for number in range(4)]
    alone = [either.all_logits(handle, prompt) for handle, prompt in zip(handles, prompts, strict=True)]
    for handle in handles:
        either.runner.truncate(handle, 0)
    together = either.forward(*(Feed(handles[number], prompts[number], all_logits=True) for number in order))
    expected = np.concatenate([alone[number] for number in order])
    np.testing.assert_allclose(together, expected, atol=TINY_TOLERANCE)


def test_no_logits_when_none_are_wanted(tiny: Driver) -> None:
    handle = tiny.create()
    batch = dataclasses.replace(tiny.batch(Feed(handle, [5, 6, 7])), logit_rows=np.empty(0, np.int32))
    result = tiny.runner.forward(batch)
    assert result.status is ForwardStatus.OK
    assert result.logits is not None
    assert result.logits.shape == (0, tiny.tokenizer.vocab_size)
    assert tiny.runner.length(handle) == 3


def test_logits_have_one_column_per_token(tiny: Driver) -> None:
    logits = tiny.forward(Feed(tiny.create(), [5, 6, 7], all_logits=True))
    assert logits.shape == (3, tiny.tokenizer.vocab_size)
    assert logits.dtype == np.float32


@settings(
    max_examples=full_or(60, reduced=12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**32))
def test_sequences_that_come_and_go_do_not_disturb_each_other(either: Driver, seed: int) -> None:
    """A random schedule; what each sequence ends with is compared with that of the same tokens run alone."""
    either.release_all()
    rng = np.random.default_rng(seed)
    texts = {number: rng.integers(4, 290, rng.integers(4, 40)).tolist() for number in range(20)}
    expected = {}
    for number, tokens in texts.items():
        handle = either.create()
        expected[number] = either.feed(handle, tokens)
        either.runner.release(handle)
    waiting, running = list(texts), {}
    while waiting or running:
        while waiting and len(running) < 8 and rng.random() < 0.7:
            running[waiting.pop()] = either.create()
        chosen = [number for number in running if rng.random() < 0.8]
        rng.shuffle(chosen)
        feeds = []
        for number in chosen:
            done = either.runner.length(running[number])
            chunk = texts[number][done : done + int(rng.integers(1, 12))]
            feeds.append(Feed(running[number], chunk))
        if not feeds:
            continue
        logits = either.forward(*feeds)
        for row, number in enumerate(chosen):
            if either.runner.length(running[number]) == len(texts[number]):
                np.testing.assert_allclose(logits[row], expected[number], atol=TINY_TOLERANCE)
                either.runner.release(running.pop(number))
    assert all(either.runner.length(either.create()) == 0 for _ in range(8))


def test_sequences_close_ranks_when_some_have_left(tiny: Driver) -> None:
    handles = [tiny.create() for _ in range(8)]
    tiny.forward(*(Feed(handle, [7, 8, 9]) for handle in handles))
    for handle in handles[::2]:
        tiny.runner.release(handle)
    for step in range(4):
        tiny.forward(*(Feed(handle, [20 + step]) for handle in handles[1::2]))
    sequences = tiny.runner._open_session().table.sequences[[handle.id for handle in handles[1::2]]]
    assert sorted(np.diff(np.sort(sequences)).tolist()) == [1, 1, 1]
    alone = tiny.feed(tiny.create(), [7, 8, 9, 20, 21, 22, 23])
    moved = tiny.forward(*(Feed(handle, [24]) for handle in handles[1::2]))
    np.testing.assert_allclose(moved, np.stack([moved[0]] * 4), atol=TINY_TOLERANCE)
    assert alone.shape == moved[0].shape


def broken(batch: Batch, **columns: list[int]) -> Batch:
    return dataclasses.replace(batch, **{name: np.array(values, np.int32) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"positions": [0, 2]}, "positions"),
        ({"positions": [1, 2]}, "positions"),
        ({"positions": [0, -1]}, "positions"),
        ({"tokens": [5, 100_000]}, "token id"),
        ({"tokens": [-1, 5]}, "token id"),
        ({"handle_ids": [7, 7]}, "not in use"),
        ({"handle_ids": [99, 99]}, "not in use"),
        ({"handle_ids": [-1, -1]}, "not in use"),
        ({"logit_rows": [2]}, "logit_rows"),
        ({"logit_rows": [1, 0]}, "logit_rows"),
        ({"logit_rows": [0, 0]}, "logit_rows"),
        ({"logit_rows": [-1]}, "logit_rows"),
        ({"tokens": [5]}, "length"),
        ({"tokens": [], "handle_ids": [], "positions": [], "logit_rows": []}, "rows"),
    ],
)
def test_a_batch_that_breaks_a_rule_is_refused(either: Driver, columns: dict[str, list[int]], message: str) -> None:
    handle = either.create()
    with pytest.raises(ValueError, match=message):
        either.runner.forward(broken(either.batch(Feed(handle, [5, 6])), **columns))
    assert either.runner.length(handle) == 0
    either.forward(Feed(handle, [5, 6]))


def test_two_runs_of_one_handle_are_refused(either: Driver) -> None:
    first, second = either.create(), either.create()
    batch = either.batch(Feed(first, [5]), Feed(second, [6]), Feed(first, [7]))
    with pytest.raises(ValueError, match="contiguous"):
        either.runner.forward(batch)


def test_more_rows_than_the_capabilities_say_are_refused(tiny: Driver) -> None:
    limit = tiny.capabilities.max_batch_tokens
    with pytest.raises(ValueError, match="rows"):
        tiny.try_forward(Feed(tiny.create(), [5] * (limit + 1)))
    with pytest.raises(ValueError, match="logits"):
        tiny.try_forward(Feed(tiny.create(), [5] * (tiny.capabilities.max_logit_rows + 1), all_logits=True))


def test_as_many_rows_as_the_capabilities_say_are_served(either: Driver) -> None:
    handle = either.create()
    rows = either.capabilities.max_logit_rows
    assert len(either.forward(Feed(handle, [5] * rows, all_logits=True))) == rows
    either.runner.truncate(handle, 0)
    either.forward(Feed(handle, [5] * either.capabilities.max_batch_tokens))


def test_a_released_handle_is_known_by_its_generation(either: Driver) -> None:
    old = either.create()
    either.forward(Feed(old, [5, 6]))
    either.runner.release(old)
    either.runner.release(old)
    new = either.create()
    assert new.id == old.id
    assert new != old
    either.runner.release(old)
    assert either.runner.length(new) == 0
    with pytest.raises(ValueError, match="not in use"):
        either.runner.length(old)
    with pytest.raises(ValueError, match="not in use"):
        either.runner.truncate(old, 0)
    with pytest.raises(ValueError, match="not in use"):
        either.runner.length(Handle(99, 0))


def test_handles_run_out_at_the_number_promised(either: Driver) -> None:
    handles = [either.runner.create() for _ in range(either.capabilities.max_handles)]
    assert None not in handles
    assert either.runner.create() is None
