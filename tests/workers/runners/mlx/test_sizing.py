"""How many tokens there is memory for."""

from dataclasses import replace

import pytest

pytest.importorskip("mlx.core", reason="mlx is not installed; run: make setup PARTS=mlx")

from workers.runners.base import RunnerError
from workers.runners.mlx.sequence_kv import PAGE, page_up
from workers.runners.mlx.sizing import KV_SHARE, KvDemand, plan_kv

pytestmark = pytest.mark.mlx

DEMAND = KvDemand(context=None, sequences=None, max_context=8192, bytes_per_token=1000, available_bytes=0)


def with_room(num_tokens: int) -> int:
    return int(num_tokens * 1000 / KV_SHARE)


def test_every_handle_has_its_context_where_memory_allows() -> None:
    plan = plan_kv(replace(DEMAND, context=300, sequences=10, available_bytes=with_room(20 * 512)))
    assert (plan.context, plan.sequences, plan.handles, plan.token_budget) == (300, 10, 20, 20 * 300)


@pytest.mark.parametrize("room", range(12 * (PAGE - 1) + 300, 12 * 512, 200))
def test_the_budget_fits_the_memory_however_it_is_spread(room: int) -> None:
    plan = plan_kv(replace(DEMAND, context=300, sequences=4, available_bytes=with_room(room)))
    assert 300 <= plan.token_budget < 12 * 300
    # The worst there is: as many pages as possible with a single token in them.
    pages = [page_up(1)] * (plan.handles - 1) + [page_up(plan.token_budget - plan.handles + 1)]
    assert sum(pages) <= room + PAGE


def test_little_memory_means_fewer_sequences_and_a_shorter_context() -> None:
    plan = plan_kv(replace(DEMAND, available_bytes=with_room(5000)))
    assert (plan.sequences, plan.context) == (4, 5000 - plan.handles * (PAGE - 1))


def test_no_memory_for_one_context_is_said() -> None:
    with pytest.raises(RunnerError, match=r"need \d+ MiB of free memory and 4 MiB are there; set a smaller `context`"):
        plan_kv(replace(DEMAND, context=4096, sequences=4, available_bytes=with_room(1100)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RunnerError, match="context must be from 1 to 8192 for this model, not 8193"):
        plan_kv(replace(DEMAND, context=8193, available_bytes=with_room(10**6)))
    with pytest.raises(RunnerError, match="sequences must be at least 1, not 0"):
        plan_kv(replace(DEMAND, sequences=0, available_bytes=with_room(10**6)))
