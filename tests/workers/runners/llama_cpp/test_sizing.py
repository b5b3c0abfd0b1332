"""KV plans, as pure arithmetic."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.sizing import KV_SHARE, KvDemand, KvPlan, plan_kv

GIB = 2**30
# 23,040 bytes per token are those of SmolLM2-135M.
DEMAND = KvDemand(
    context=None, sequences=None, trained_context=8192, threads=2, bytes_per_token=23_040, available_bytes=16 * GIB
)


def plan(**changes: object) -> KvPlan:
    return plan_kv(replace(DEMAND, **changes))


def test_with_plenty_of_memory_every_sequence_has_its_buffer() -> None:
    assert plan() == KvPlan(4096, 16, is_unified=False, num_cells=20 * 4096, num_spare=4)


@pytest.mark.parametrize(("threads", "sequences"), [(1, 8), (2, 16), (3, 24), (4, 32), (64, 32)])
def test_sequences_grow_with_threads(threads: int, sequences: int) -> None:
    assert plan(threads=threads).sequences == sequences


def test_what_was_not_asked_for_shrinks_before_the_layout_changes() -> None:
    assert plan(available_bytes=5 * GIB) == KvPlan(4096, 8, is_unified=False, num_cells=10 * 4096, num_spare=2)
    assert plan(available_bytes=2 * GIB) == KvPlan(2048, 8, is_unified=False, num_cells=10 * 2048, num_spare=2)


def test_what_was_asked_for_stays_and_shares_one_buffer() -> None:
    shared = plan(context=8192, sequences=32, available_bytes=8 * GIB)
    assert (shared.context, shared.sequences, shared.is_unified) == (8192, 32, True)
    assert 8192 <= shared.num_cells <= 8 * GIB * KV_SHARE / 23_040
    assert shared.token_budget == shared.num_cells


def test_what_only_keeps_kv_takes_no_more_than_is_left() -> None:
    exact = 16 * 4096 * 23_040 / KV_SHARE
    assert (plan(available_bytes=int(exact) + 1).sequences, plan(available_bytes=int(exact) + 1).num_spare) == (16, 0)
    assert plan(available_bytes=int(exact * 17 / 16) + 1).num_spare == 1
    assert (plan(sequences=250, context=256).num_spare, plan(sequences=256, context=256).num_spare) == (6, 0)
    shared = plan(context=8192, sequences=32, available_bytes=8 * GIB)
    assert (shared.num_spare, plan().max_kept_tokens) == (32, None)
    assert shared.max_kept_tokens


def test_a_single_sequence_has_a_buffer_of_its_own_in_any_case() -> None:
    assert not plan(context=8192, sequences=1, available_bytes=GIB // 2).is_unified


def test_the_trained_context_is_the_most_that_is_chosen() -> None:
    assert plan(trained_context=1024).context == 1024
    assert plan(trained_context=8192, context=16_384).context == 16_384


def test_odd_contexts_are_padded_in_memory_and_not_in_what_is_promised() -> None:
    odd = plan(context=1000, sequences=3)
    assert odd.context == 1000
    assert odd.num_cells == 3 * 1024
    assert odd.token_budget == 3000


def test_a_context_that_has_no_room_is_refused() -> None:
    with pytest.raises(RunnerError, match=r"100000 tokens needs 2\.1 GiB .* 1\.0 GiB are available"):
        plan(context=100_000, available_bytes=GIB)


@given(
    context=st.none() | st.integers(1, 200_000),
    sequences=st.none() | st.integers(1, 256),
    trained_context=st.integers(0, 200_000),
    threads=st.integers(1, 200),
    bytes_per_token=st.floats(100, 10_000_000),
    available_bytes=st.integers(0, 2**40),
)
def test_no_plan_takes_more_than_there_is(**demand: object) -> None:
    try:
        chosen = plan_kv(KvDemand(**demand))
    except RunnerError:
        return
    assert chosen.num_cells * demand["bytes_per_token"] <= demand["available_bytes"]
    assert 1 <= chosen.context <= chosen.num_cells
    assert 1 <= chosen.sequences <= chosen.num_handles <= 256
    assert demand["context"] in (None, chosen.context)
    assert demand["sequences"] in (None, chosen.sequences)
    if not chosen.is_unified and chosen.sequences > 1:
        assert chosen.num_cells * demand["bytes_per_token"] <= demand["available_bytes"] * KV_SHARE
