"""Forks, cuts, exports: a prefix that was taken over continues as one that was computed."""

import numpy as np
import pytest

from tests.workers.runners.llama_cpp.driver import Driver, Feed
from workers.runners.base import ForkKind, ForwardStatus

pytestmark = [pytest.mark.llama, pytest.mark.paged_kv]

PREFIX = [5 + 3 * step for step in range(48)]
SUFFIX = [11, 13, 17, 19]
OTHER = [200, 201, 202, 203, 204]
TINY_TOLERANCE = 0.15


def test_each_layout_says_what_a_fork_costs(tiny: Driver, unified: Driver) -> None:
    assert tiny.capabilities.fork is ForkKind.COPIED
    assert (tiny.capabilities.max_running, tiny.capabilities.max_handles) == (8, 10)
    assert (unified.capabilities.max_running, unified.capabilities.max_handles) == (8, 16)
    assert tiny.capabilities.kv_token_budget == 10 * 512
    assert unified.capabilities.fork is ForkKind.SHARED
    assert unified.capabilities.fork_cost_tokens == 0
    assert unified.capabilities.kv_token_budget == 512
    assert tiny.capabilities.kv_format != unified.capabilities.kv_format


@pytest.mark.parametrize("length", [1, 20, 48])
def test_a_fork_continues_like_its_source(either: Driver, length: int) -> None:
    source = either.create()
    either.feed(source, PREFIX)
    expected = either.feed(expected_handle(either, PREFIX[:length]), SUFFIX)
    fork = either.runner.fork(source, length)
    assert fork is not None
    assert either.runner.length(fork) == length
    # The source goes its own way in the same step, and keeps doing so when the fork is gone.
    logits = either.forward(Feed(source, OTHER), Feed(fork, SUFFIX))
    np.testing.assert_allclose(logits[1], expected, atol=TINY_TOLERANCE)
    either.runner.release(fork)
    again = either.feed(expected_handle(either, PREFIX + OTHER), SUFFIX)
    np.testing.assert_allclose(either.feed(source, SUFFIX), again, atol=TINY_TOLERANCE)


def expected_handle(driver: Driver, tokens: list[int]) -> object:
    handle = driver.create()
    driver.feed(handle, tokens)
    return handle


def test_forks_of_forks_survive_their_source(either: Driver) -> None:
    source = either.create()
    either.feed(source, PREFIX)
    expected = either.feed(expected_handle(either, PREFIX[:30]), SUFFIX)
    first = either.runner.fork(source, 40)
    assert first is not None
    either.runner.release(source)
    second = either.runner.fork(first, 30)
    assert second is not None
    either.runner.truncate(first, 10)
    either.feed(either.create(), OTHER)
    np.testing.assert_allclose(either.feed(second, SUFFIX), expected, atol=TINY_TOLERANCE)


def test_a_fork_of_nothing_is_an_empty_handle(either: Driver) -> None:
    source = either.create()
    either.feed(source, PREFIX)
    fork = either.runner.fork(source, 0)
    assert fork is not None
    assert either.runner.length(fork) == 0


def test_no_fork_without_a_handle_for_it(either: Driver) -> None:
    handles = [either.create() for _ in range(either.capabilities.max_handles)]
    either.feed(handles[0], PREFIX)
    assert either.runner.fork(handles[0], 5) is None


def test_a_prefix_that_is_not_there_cannot_be_taken(either: Driver) -> None:
    handle = either.create()
    either.feed(handle, OTHER)
    with pytest.raises(ValueError, match="5 tokens"):
        either.runner.fork(handle, 6)
    with pytest.raises(ValueError, match="5 tokens"):
        either.runner.truncate(handle, 6)
    with pytest.raises(ValueError, match="5 tokens"):
        either.runner.truncate(handle, -1)


def test_forks_share_their_cells_in_one_buffer(unified: Driver) -> None:
    source = unified.create()
    unified.feed(source, [7] * 400)
    forks = [unified.runner.fork(source, 400) for _ in range(5)]
    batch = unified.batch(*(Feed(fork, [8] * 20) for fork in forks if fork is not None))
    assert unified.runner.can_fit(batch)
    assert unified.runner.forward(batch).status is ForwardStatus.OK


def test_a_cut_sequence_continues_like_a_short_one(either: Driver) -> None:
    expected = either.feed(expected_handle(either, PREFIX[:20]), SUFFIX)
    handle = either.create()
    either.feed(handle, PREFIX)
    either.runner.truncate(handle, 20)
    assert either.runner.length(handle) == 20
    np.testing.assert_allclose(either.feed(handle, SUFFIX), expected, atol=TINY_TOLERANCE)


def test_sequences_that_only_keep_kv_give_way_and_keep_it(tiny: Driver) -> None:
    first, idle, last = tiny.create(), tiny.create(), tiny.create()
    tiny.feed(idle, PREFIX[:30])
    tiny.forward(Feed(first, PREFIX), Feed(last, PREFIX[:40]))
    table = tiny.runner._open_session().table
    for step in range(12):
        tiny.forward(Feed(first, [50 + step]), Feed(last, [50 + step]))
    assert [table.sequence(handle) for handle in (first, last, idle)] == [0, 1, 2]
    steps = [50 + step for step in range(12)]
    for handle, tokens in ((first, PREFIX + steps), (last, PREFIX[:40] + steps), (idle, PREFIX[:30])):
        expected = tiny.feed(expected_handle(tiny, tokens), SUFFIX)
        np.testing.assert_allclose(tiny.feed(handle, SUFFIX), expected, atol=TINY_TOLERANCE)


def test_rejected_drafts_leave_no_trace(real: Driver) -> None:
    prompt = real.tokenizer.encode("The quick brown fox", add_bos=True, parse_special=True)
    plain, drafted = real.create(), real.create()
    expected = [real.feed(plain, prompt), real.feed(plain, [42])]
    real.feed(drafted, prompt)
    real.forward(Feed(drafted, [100, 200, 300], all_logits=True))
    real.runner.truncate(drafted, len(prompt))
    assert np.array_equal(real.feed(drafted, [42]), expected[1])


@pytest.mark.parametrize("way", ["fork", "truncate", "export"])
def test_a_prefix_of_equal_chunks_continues_with_equal_bits(real: Driver, way: str) -> None:
    prefix, suffix = list(range(100, 148)), list(range(300, 310))
    undisturbed, source = real.create(), real.create()
    real.feed(undisturbed, prefix, chunk=24)
    expected = real.feed(undisturbed, suffix)
    real.feed(source, prefix, chunk=24)
    match way:
        case "fork":
            real.feed(source, [1, 2, 3])
            handle = real.runner.fork(source, len(prefix))
        case "truncate":
            real.feed(source, [1, 2, 3])
            real.runner.truncate(source, len(prefix))
            handle = source
        case _:
            data = real.runner.export(source)
            real.runner.release(source)
            handle = real.runner.import_(data, len(prefix))
    assert handle is not None
    assert np.array_equal(real.feed(handle, suffix), expected)


def test_an_exported_sequence_comes_back(either: Driver) -> None:
    source = either.create()
    either.feed(source, PREFIX)
    data = either.runner.export(source)
    expected = either.feed(source, SUFFIX)
    either.runner.release(source)
    either.feed(either.create(), OTHER)
    handle = either.runner.import_(data, len(PREFIX))
    assert handle is not None
    assert either.runner.length(handle) == len(PREFIX)
    np.testing.assert_allclose(either.feed(handle, SUFFIX), expected, atol=TINY_TOLERANCE)


def test_an_empty_sequence_comes_back(either: Driver) -> None:
    handle = either.runner.import_(either.runner.export(either.create()), 0)
    assert handle is not None
    assert either.runner.length(handle) == 0


def test_an_export_is_not_behind_a_fork(tiny: Driver) -> None:
    source = tiny.create()
    tiny.feed(source, PREFIX)
    fork = tiny.runner.fork(source, len(PREFIX))
    assert fork is not None
    assert len(tiny.runner.export(fork)) == len(tiny.runner.export(source))
    tiny.runner.release(source)
    tiny.feed(tiny.create(), OTHER * 10)
    expected = tiny.feed(expected_handle(tiny, PREFIX), SUFFIX)
    np.testing.assert_allclose(tiny.feed(fork, SUFFIX), expected, atol=TINY_TOLERANCE)


@pytest.mark.parametrize("damage", ["other layout", "short", "empty", "noise", "other length"])
def test_what_cannot_be_imported_is_a_miss(tiny: Driver, unified: Driver, damage: str) -> None:
    source = unified.create() if damage == "other layout" else tiny.create()
    owner = unified if damage == "other layout" else tiny
    owner.feed(source, PREFIX)
    data = owner.runner.export(source)
    length = len(PREFIX)
    match damage:
        case "short":
            data = data[:-100]
        case "empty":
            data = b""
        case "noise":
            data = bytes(range(256)) * 8
        case "other length":
            length += 1
    assert tiny.runner.import_(data, length) is None
    free = tiny.capabilities.max_handles - (0 if damage == "other layout" else 1)
    assert all(tiny.runner.length(tiny.create()) == 0 for _ in range(free))


def test_what_is_too_long_is_not_imported(open_model: object, tiny: Driver, unified: Driver) -> None:
    handle = unified.create()
    unified.feed(handle, [7] * 300)
    assert unified.runner.import_(unified.runner.export(handle), 300) is None
    assert tiny.runner.import_(b"", 513) is None
