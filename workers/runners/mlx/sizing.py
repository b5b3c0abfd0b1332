"""How many tokens of keys and values there is memory for."""

from dataclasses import dataclass

from workers.runners.base import RunnerError
from workers.runners.mlx.sequence_kv import PAGE, page_up

# Of the memory that is free with the weights loaded. The rest is for activations, and for whoever else is here.
KV_SHARE = 0.25
DEFAULT_CONTEXT = 4096
DEFAULT_SEQUENCES = 16
_MIN_CONTEXT = 512
_MIN_SEQUENCES = 4
_MIN_KEEPING = 8


@dataclass(frozen=True, slots=True)
class KvDemand:
    """What was asked for (None: not said) and what there is."""

    context: int | None
    sequences: int | None
    max_context: int
    bytes_per_token: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class KvPlan:
    """`context` is the most tokens of one sequence, `token_budget` of all together. Of `handles`, `sequences` are for
    those that run; the others only keep what may be of use again."""

    context: int
    sequences: int
    handles: int
    token_budget: int


def plan_kv(demand: KvDemand) -> KvPlan:
    """Raises RunnerError when not even one context has room."""
    _check(demand)
    room = int(demand.available_bytes * KV_SHARE / demand.bytes_per_token)
    sequences = _default_sequences(room) if demand.sequences is None else demand.sequences
    context = min(DEFAULT_CONTEXT, demand.max_context) if demand.context is None else demand.context
    handles = _handles(sequences)
    if page_up(context) * handles <= room:
        return KvPlan(context, sequences, handles, context * handles)
    budget = room - _slack(handles)
    if demand.context is None:
        context = min(context, max(budget, _MIN_CONTEXT))
    if budget < context:
        needed = (context + _slack(handles)) * demand.bytes_per_token / KV_SHARE
        raise RunnerError(
            f"{sequences} sequences with a context of {context} tokens need {needed / 2**20:.0f} MiB of free memory and"
            f" {demand.available_bytes / 2**20:.0f} MiB are there; set a smaller `context` or fewer `sequences`"
        )
    return KvPlan(context, sequences, handles, budget)


def _handles(sequences: int) -> int:
    """One to keep the KV of each that ran, and some more where few run: they cost what is in them."""
    return sequences + max(sequences, _MIN_KEEPING)


def _slack(handles: int) -> int:
    """Each handle's last page may be all but empty."""
    return handles * (PAGE - 1)


def _default_sequences(room: int) -> int:
    """Fewer where half-empty pages would take more than a quarter of the room."""
    sequences = DEFAULT_SEQUENCES
    while sequences > _MIN_SEQUENCES and _slack(_handles(sequences)) > room // 4:
        sequences //= 2
    return sequences


def _check(demand: KvDemand) -> None:
    if demand.context is not None and not 1 <= demand.context <= demand.max_context:
        raise RunnerError(f"context must be from 1 to {demand.max_context} for this model, not {demand.context}")
    if demand.sequences is not None and demand.sequences < 1:
        raise RunnerError(f"sequences must be at least 1, not {demand.sequences}")
