"""How much KV memory, and in which layout.

Split gives each sequence a buffer of its own: faster, and a sequence's numbers do not depend on the others' cells. But
it is all committed, and zeroed, at once. Unified is one buffer for all, in which sequences may be longer than their
share.

Sequences that do not run keep KV for later. In split layout each is a buffer more (2,048 tokens of a 135M model: 45 MiB
and 10 ms at start), so there are a few beyond those that run; those that are free serve as well. In unified layout they
cost nothing until they hold tokens.
"""

from dataclasses import dataclass

from workers.runners.base import RunnerError

# The library allocates whole pages of this many tokens per buffer, and knows this many sequences.
_PAD = 256
MAX_SEQUENCES = 256

# Of the memory that is free with the weights loaded. The rest is for edge, broker and whoever else is here.
KV_SHARE = 0.25

DEFAULT_CONTEXTS = (4096, 2048)
_MIN_CONTEXT = 512
_MIN_SEQUENCES = 8
_SEQUENCES_PER_THREAD = 8
_DEFAULT_MAX_SEQUENCES = 32
# One sequence that only keeps KV for so many that run, where KV_SHARE has room for it.
_RUNNING_PER_SPARE = 4
# In unified layout every step reads all that is kept, its own or not: a step of 8 takes 15 % longer beside so many
# tokens, 65 % beside four times as many.
_MAX_KEPT_UNIFIED = 2048


@dataclass(frozen=True, slots=True)
class KvPlan:
    """`context` is the most tokens of one sequence, `num_cells` what the library is asked for in all. `sequences` may
    run at once, `num_spare` more only keep KV.
    """

    context: int
    sequences: int
    is_unified: bool
    num_cells: int
    num_spare: int = 0

    @property
    def num_handles(self) -> int:
        return self.sequences + self.num_spare

    @property
    def token_budget(self) -> int:
        return self.num_cells if self.is_unified else self.context * self.num_handles

    @property
    def max_kept_tokens(self) -> int | None:
        """How much KV may be kept that nobody needs now; None: all there is room for."""
        return _MAX_KEPT_UNIFIED if self.is_unified else None


@dataclass(frozen=True, slots=True)
class KvDemand:
    """What was asked for (None: not said) and what there is."""

    context: int | None
    sequences: int | None
    trained_context: int
    threads: int
    bytes_per_token: float
    available_bytes: int


def plan_kv(demand: KvDemand) -> KvPlan:
    """Split when sequences x context fit KV_SHARE of the available memory, else unified with what that share holds.

    What was not asked for is chosen: 8 sequences per thread, from 8 to 32; a context of 4,096 tokens or the trained
    one; both smaller where that makes split fit. Raises RunnerError when not even one context has room.
    """
    _check(demand)
    budget = int(demand.available_bytes * KV_SHARE / demand.bytes_per_token)
    candidates = [(context, count) for context in _contexts(demand) for count in _sequence_counts(demand)]
    for context, count in candidates:
        if _pad(context) * count <= budget:
            spare = min(count // _RUNNING_PER_SPARE, budget // _pad(context) - count, MAX_SEQUENCES - count)
            return KvPlan(context, count, is_unified=False, num_cells=_pad(context) * (count + spare), num_spare=spare)
    return _unified(demand, *candidates[-1], budget)


def check_weights_fit(name: str, weights_bytes: int, memory_bytes: int) -> None:
    """Raises RunnerError when the weights would not stay in memory."""
    if weights_bytes > memory_bytes:
        raise RunnerError(
            f"{name} has {_size(weights_bytes)} of weights and {_size(memory_bytes)} of memory are available"
        )


def _unified(demand: KvDemand, context: int, sequences: int, budget: int) -> KvPlan:
    if demand.context is None:
        context = min(context, max(_MIN_CONTEXT, budget // _PAD * _PAD))
    num_cells = max(_pad(context), budget // _PAD * _PAD)
    needed = int(num_cells * demand.bytes_per_token)
    if needed > demand.available_bytes:
        raise RunnerError(
            f"a context of {context} tokens needs {_size(needed)} of KV memory and {_size(demand.available_bytes)} are"
            " available; set a smaller `context` or another `kv_type`"
        )
    if sequences == 1:
        return KvPlan(context, 1, is_unified=False, num_cells=num_cells)
    return KvPlan(
        context, sequences, is_unified=True, num_cells=num_cells, num_spare=min(sequences, MAX_SEQUENCES - sequences)
    )


def _contexts(demand: KvDemand) -> list[int]:
    if demand.context is not None:
        return [demand.context]
    trained = demand.trained_context or DEFAULT_CONTEXTS[0]
    return sorted({min(trained, context) for context in DEFAULT_CONTEXTS}, reverse=True)


def _sequence_counts(demand: KvDemand) -> list[int]:
    if demand.sequences is not None:
        return [demand.sequences]
    counts = [min(max(demand.threads * _SEQUENCES_PER_THREAD, _MIN_SEQUENCES), _DEFAULT_MAX_SEQUENCES)]
    while counts[-1] // 2 >= _MIN_SEQUENCES:
        counts.append(counts[-1] // 2)
    return counts


def _check(demand: KvDemand) -> None:
    if demand.context is not None and demand.context < 1:
        raise RunnerError(f"context must be at least 1, not {demand.context}")
    if demand.sequences is not None and not 1 <= demand.sequences <= MAX_SEQUENCES:
        raise RunnerError(f"sequences must be from 1 to {MAX_SEQUENCES} on llama.cpp, not {demand.sequences}")


def _pad(num_tokens: int) -> int:
    return -(-num_tokens // _PAD) * _PAD


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"
